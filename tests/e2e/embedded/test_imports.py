"""Modules that workers import and that make or start a Cluster of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes import marked, nothing_left, run_python
from waiting import PATIENCE

FUNCTION = """
from jetmap import Cluster, task

@task
def double(n: int) -> int:
    return 2 * n
"""
SYNC = """
with Cluster(cores=1, start_timeout=200).sync as cluster:
    print(cluster.map(double, [1]))
"""
ASYNC = """
import asyncio

async def main():
    async with Cluster(cores=1, start_timeout=200) as cluster:
        print(await cluster.map(double, [1]))

asyncio.run(main())
"""
USER = """
from jetmap import Cluster
if __name__ == "__main__":
    with Cluster(tasks="starting.py", cores=1, start_timeout=200).sync as cluster:
        print(cluster.map("double", [1]))
"""


@pytest.mark.parametrize(
    "starting", [SYNC, pytest.param(ASYNC, marks=pytest.mark.slow)], ids=["sync", "async"]
)
def test_a_script_without_a_guard(tmp_path: Path, starting: str) -> None:
    with nothing_left():
        done = run_python(FUNCTION + starting, cwd=tmp_path, timeout=PATIENCE)
    _refused(done)


@pytest.mark.parametrize("starting", [SYNC, ASYNC], ids=["sync", "async"])
@pytest.mark.slow
def test_a_tasks_file_that_starts_a_cluster(tmp_path: Path, starting: str) -> None:
    (tmp_path / "starting.py").write_text(FUNCTION + starting)
    with nothing_left() as mark:
        user = subprocess.Popen(
            [sys.executable, "-c", USER], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        most = 0
        began = time.monotonic()
        try:
            while user.poll() is None and most < 12 and time.monotonic() - began < PATIENCE:
                most = max(most, len(marked(mark)))
                time.sleep(0.05)  # It counts what there is meanwhile.
        finally:
            user.kill()
            assert user.stderr is not None
            said = user.stderr.read()
            user.stderr.close()
            code = user.wait()
        # The user, the keeper, its server, its worker; and one that is just being started.
        assert most < 8, f"{most} processes"
    _refused(subprocess.CompletedProcess([], code, "", said))


def test_a_module_may_make_a_cluster_for_its_application(tmp_path: Path) -> None:
    made = FUNCTION + "\ncluster = Cluster(cores=1)\n"
    (tmp_path / "making.py").write_text(made)
    code = """
import asyncio, making
async def main():
    async with making.cluster as cluster:
        print(await cluster.map(making.double, [1, 2]))
asyncio.run(main())
"""
    with nothing_left():
        done = run_python(code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[2, 4]\n", "")


def _refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1
    said = done.stderr
    assert "WorkerStartFailed: no worker can start" in said
    assert "a Cluster cannot be started inside a worker" in said
    assert 'if __name__ == "__main__":' in said and "lifespan" in said
