"""The keeper of embedded clusters: shared, private, replaced, and gone with its last user."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import functions
from jetmap import Cluster
from processes import HERE, KEEPER, marked, nothing_left, run_python
from servers import FUNCTIONS
from waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_processes_share_a_keeper(shared: Cluster, mark: str) -> None:
    def keepers() -> list[psutil.Process]:
        return [p for p in marked(mark) if KEEPER in " ".join(p.cmdline())]

    (agent,) = shared.workers
    children = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(HERE / "second_user.py"), FUNCTIONS),
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for child in children:
        told, _ = await child.communicate()
        found = json.loads(told)
        assert found["agents"] == [agent.agent]
        assert found["values"] == [True, False]
    assert len(keepers()) == 1
    assert await shared.map(functions.is_prime, [7]) == [True]


@pytest.mark.slow
async def test_a_private_one(shared: Cluster, mark: str) -> None:
    before = len(marked(mark))
    async with Cluster(tasks=FUNCTIONS, share=False, cores=1) as cluster:
        assert {p.agent for p in cluster.workers}.isdisjoint({p.agent for p in shared.workers})
        assert await cluster.map(functions.is_prime, [7]) == [True]
        assert len(marked(mark)) > before
    await wait_until(lambda: len(marked(mark)) <= before, "the private keeper ends")


def test_changed_sources_replace_the_workers(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(CHANGING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "2"]


CHANGING = """
import importlib, os, pathlib, sys, time
from jetmap import Cluster

FILE = pathlib.Path("changing.py")

def write(version):
    FILE.write_text(f"from jetmap import task\\n@task\\ndef version(n: int): return {version}\\n")
    os.utime(FILE, (version * 1000, version * 1000))

if __name__ == "__main__":
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    write(1)
    sys.path.insert(0, os.getcwd())
    import changing
    with Cluster(tasks="changing.py").sync as cluster:
        print(*cluster.map(changing.version, [1]))
        write(2)
        importlib.reload(changing)
        print(*cluster.map(changing.version, [1]))
"""


def test_a_map_waits_for_the_workers_of_the_next_keeper(tmp_path: Path) -> None:
    """Their imports take longer than a map waits for workers of others."""
    (tmp_path / "late.py").write_text(LATE)
    with nothing_left():
        done = run_python(REPLACED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["[1, 4]", "[9]", ""]


LATE = """
import time
from jetmap import task
time.sleep(2.5)

@task
def square(n: int) -> int:
    return n * n
"""
REPLACED = """
import os, signal, time
from jetmap import Cluster
import late

if __name__ == "__main__":
    with Cluster(tasks="late.py", share=False, cores=1).sync as cluster:
        print(cluster.map(late.square, [1, 2]), flush=True)
        os.kill(cluster.workers[0].pid, signal.SIGTERM)
        while cluster.workers:
            time.sleep(0.01)
        print(cluster.map(late.square, [3]))
"""


@pytest.mark.slow
async def test_a_killed_keeper_is_replaced() -> None:
    with nothing_left() as mark:
        async with Cluster(tasks=FUNCTIONS, share=False, cores=1) as cluster:
            numbers = list(range(600))
            running = asyncio.ensure_future(
                cluster.map(functions.work, [functions.Work(n, 2000) for n in numbers])
            )
            await wait_until(lambda: cluster.stats.items_done > 50, "the map runs")
            (keeper,) = [p for p in marked(mark) if KEEPER in " ".join(p.cmdline())]
            keeper.kill()
            assert await running == numbers
