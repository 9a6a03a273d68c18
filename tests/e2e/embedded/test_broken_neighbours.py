"""Two programs of one directory share a keeper: what is wrong with a module of one is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jetmap.agent.imports import RETRY_SECONDS, Imports
from jetmap.agent.options import worker_setup
from jetmap.settings import Settings
from jetmap.wire.worker_start import Broken
from processes import KEEPER, cmdline, marked, nothing_left
from waiting import PATIENCE, wait_until_sync

GOOD = """
from jetmap import task

@task
def good(n: int) -> int:
    return n + 1
"""
# In a worker, not in the program that imports it: that one is started first.
BAD = """
import os, sys, time
from jetmap import task

if "jetmap.worker.main" in sys.modules:
    WRONG

@task
def bad(n: int) -> int:
    return 2 * n
"""
PROGRAM = """
import json, sys, time
from jetmap import Cluster, JetmapError
{imports}

def said(cluster, f):
    try:
        return cluster.map(f, range(20))
    except JetmapError as error:
        return [type(error).__name__, str(error)]

if __name__ == "__main__":
    with Cluster(start_timeout=float(sys.argv[1])).sync as cluster:
        print("started", flush=True)
        for line in sys.stdin:
            print(json.dumps(said(cluster, eval(line))), flush=True)
"""
WAITS = (
    "while not os.path.exists(os.path.join(os.path.dirname(__file__), 'gate')): time.sleep(0.05)"
)


class Program:
    """A program that maps the functions that it is given."""

    def __init__(self, directory: Path, *modules: str, timeout: float = 30) -> None:
        self._is_started = False
        imports = "\n".join(f"from {module} import *" for module in modules)
        script = directory / f"program_{'_'.join(modules)}.py"
        script.write_text(PROGRAM.replace("{imports}", imports))
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(timeout)],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until_started(self) -> None:
        """Wait until its cluster has started."""
        assert self._process.stdout is not None
        if not self._is_started:
            assert self._process.stdout.readline() == "started\n"
            self._is_started = True

    def begin(self, function: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{function}\n")
        self._process.stdin.flush()

    def end(self) -> list[object]:
        assert self._process.stdout is not None
        self.until_started()
        found: list[object] = json.loads(self._process.stdout.readline())
        return found

    def map(self, function: str) -> list[object]:
        self.begin(function)
        return self.end()

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@contextmanager
def programs(directory: Path, *wanted: tuple[tuple[str, ...], float]) -> Iterator[list[Program]]:
    with nothing_left() as mark:
        started: list[Program] = []
        try:
            for modules, timeout in wanted:
                started.append(Program(directory, *modules, timeout=timeout))
                if len(started) == 1:
                    wait_until_sync(lambda: bool(keepers(mark)), "it has started the keeper")
            yield started
            assert len(keepers(mark)) == 1
        finally:
            for program in started:
                program.close()


def keepers(mark: str) -> list[int]:
    return [p.pid for p in marked(mark) if KEEPER in " ".join(cmdline(p))]


def test_only_maps_of_the_broken_module_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken program came first, and has modules of both kinds."""
    monkeypatch.setenv("JETMAP_CORES", "2")
    said = "exited with code 9 while it imported badly"
    (tmp_path / "well.py").write_text(GOOD)
    (tmp_path / "badly.py").write_text(BAD.replace("WRONG", "os._exit(9)"))
    both, alone = (("well", "badly"), 50.0), (("well",), 50.0)
    with programs(tmp_path, both, alone) as (broken, other):
        assert other.map("good") == list(range(1, 21))
        broken.begin("bad")
        assert other.map("good") == list(range(1, 21))
        kind, text = broken.end()
        assert kind == "WorkerStartFailed" and said in str(text), text
        assert "no worker can import badly" in str(text)
        assert broken.map("good") == list(range(1, 21))
        # A call by name gives the same.
        kind, text = broken.map("'bad'")
        assert kind == "WorkerStartFailed" and said in str(text), text
        (tmp_path / "badly.py").write_text(BAD.replace("WRONG", "pass"))
        os.utime(tmp_path / "badly.py", (1, 1))
        wait_until_sync(lambda: broken.map("bad")[:2] == [0, 2], "mended, it is found to be so")
        assert other.map("good") == list(range(1, 21))


@pytest.mark.slow
def test_a_slow_import_of_one_keeps_no_other_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETMAP_CORES", "1")
    (tmp_path / "well.py").write_text(GOOD)
    (tmp_path / "badly.py").write_text(BAD.replace("WRONG", WAITS))
    with programs(tmp_path, (("badly",), 50.0), (("well",), 30.0)) as (slow, other):
        other.until_started()
        (tmp_path / "gate").touch()
        assert other.map("good") == list(range(1, 21))
        assert slow.map("bad") == [2 * n for n in range(20)]


def test_what_is_imported_again_and_when() -> None:
    modules = ["a", "b"]
    imports = Imports(worker_setup(Settings(), modules=modules))
    assert imports.on_failed(Broken("a", "killed"), 1.0, fatal=True)
    assert not imports.on_failed(Broken("a", "killed"), 2.0, fatal=True)
    assert imports.on_failed(Broken("b", "raises"), 3.0, fatal=False)
    assert imports.on_failed(Broken("/x.py", "raises"), 3.0, fatal=True)
    # The next worker does not begin with what would kill it; the others try again later.
    assert modules == ["b"]
    assert imports.broken(4.0) == {"a": "killed", "b": "raises", "/x.py": "raises"}
    assert imports.broken(3.0 + RETRY_SECONDS) == {}
    imports.on_changed()
    assert (modules, imports.broken(4.0)) == (["a", "b"], {})
