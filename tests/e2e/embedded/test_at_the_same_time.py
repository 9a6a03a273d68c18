"""Programs that change, or differ, while the workers that they share are at work."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from processes import run_python
from waiting import PATIENCE

CELLS = """
    import asyncio
    from pathlib import Path

    from jetmap import Cluster, task

    @task
    def f(n: int) -> str:
        Path(f"begun {n}").touch()
        while not Path("go on").exists():
            time.sleep(0.01)
        return "old"

    async def main():
        async with Cluster(cores=1) as cluster:
            first = asyncio.create_task(cluster.map(f, range(3)))
            while not Path("begun 0").exists():
                await asyncio.sleep(0.01)
            exec(REDEFINITION, globals())
            second = asyncio.create_task(cluster.map(f, range(3)))
            await asyncio.sleep(0)  # It begins while the first one is in its first item.
            Path("go on").touch()
            print(await first, await second)

    asyncio.run(main())
"""


@pytest.mark.slow
def test_a_cell_that_redefines_a_function_while_it_runs(tmp_path: Path) -> None:
    """The map that runs keeps its function; the next one has the new one."""
    redefinition = "@task\ndef f(n: int) -> str:\n    return 'new'\n"
    code = f"import time\nREDEFINITION = {redefinition!r}\n" + textwrap.dedent(CELLS)
    done = run_python(code, cwd=tmp_path, file=False)
    assert (done.stdout, done.stderr) == (f"{['old'] * 3} {['new'] * 3}\n", "")


SCRIPT = """
    import sys
    import time
    from pathlib import Path

    from jetmap import Cluster, task

    MINE = "{name}"

    class Thing:
        def __init__(self, n):
            self.n = n

        def said(self):
            return MINE, self.n

    @task
    def again(thing):
        assert type(thing) is Thing
        return thing.said(), Thing(thing.n + 1)

    def meet(step):
        Path(f"{name} {{step}}").touch()
        while not all(Path(f"{{name}} {{step}}").exists() for name in ("first", "second")):
            time.sleep(0.01)

    if __name__ == "__main__":
        with Cluster(cores=1).sync as cluster:
            meet("started")
            for turn in range(5):
                for said, thing in cluster.map(again, [Thing(n) for n in range(20)]):
                    assert type(thing) is Thing and said == ("{name}", thing.n - 1)
            meet("done")
"""


def test_two_scripts_of_one_directory_whose_classes_have_the_same_name(tmp_path: Path) -> None:
    scripts = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(SCRIPT.format(name=name)))
        scripts.append(
            subprocess.Popen(
                [sys.executable, str(path)],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [running.communicate(timeout=PATIENCE)[0] for running in scripts]
    finally:
        for running in scripts:
            running.kill()
    assert said == ["", ""] and [script.returncode for script in scripts] == [0, 0]
