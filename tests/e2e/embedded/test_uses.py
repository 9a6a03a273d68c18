"""``Cluster`` in scripts, threads, notebooks, forks and workers: it works, or says why not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import functions
from jetmap import Cluster, ClusterClosed, JobsUnavailable, NotImportable, task
from processes import nothing_left, run_python
from servers import FUNCTIONS
from waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_sync_from_threads(shared: Cluster) -> None:
    found: dict[int, list[bool]] = {}

    def use(number: int) -> None:
        values = shared.sync.map(functions.is_prime, range(number))
        with shared.sync.stream(functions.is_prime, range(number), ordered=True) as stream:
            assert [outcome.value for outcome in stream] == values
        found[number] = values

    threads = [threading.Thread(target=use, args=(n,)) for n in (10, 20, 30)]
    for thread in threads:
        thread.start()
    await wait_until(lambda: not any(t.is_alive() for t in threads), "the threads end")
    assert found == {n: [functions.is_prime(i) for i in range(n)] for n in (10, 20, 30)}
    with pytest.raises(ClusterClosed, match="await"):
        shared.sync.map(functions.is_prime, [7])


def test_sync_in_a_script(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(SCRIPT, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"squares": [0, 1, 4, 9], "primes": [True, False]}
    # What workers register with atexit is called, as coverage needs.
    began, ended = ({p.name[5:] for p in tmp_path.glob(f"{n}-*")} for n in ("began", "ended"))
    assert began and began < ended


SCRIPT = """
import atexit, json, os
from pathlib import Path
from jetmap import Cluster, task
from functions import is_prime

@task
def square(n: int) -> int:
    Path(f"began-{os.getpid()}").touch()
    return n * n

atexit.register(lambda: Path(f"ended-{os.getpid()}").touch())
if __name__ == "__main__":
    with Cluster().sync as cluster:
        squares = cluster.map(square, range(4))
        primes = [outcome.value for outcome in cluster.stream(is_prime, [7, 8], ordered=True)]
    print(json.dumps({"squares": squares, "primes": primes}))
"""

BY_VALUE = """
import json
from jetmap import Cluster, task
factor = 3

@task
def times(n: int) -> int:
    return n * factor

cluster = Cluster().sync.__enter__()
print(json.dumps(cluster.map(times, [1, 2])))

@task
def times(n: int) -> int:
    return n * factor + 1

print(json.dumps(cluster.map(times, [1, 2])))
cluster.close()
"""


@pytest.mark.slow
def test_in_a_repl(tmp_path: Path) -> None:
    with nothing_left():
        done = subprocess.run(
            [sys.executable, "-i", "-q"],
            input=BY_VALUE,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=40,
        )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[3, 6], [4, 7]]
    assert "Traceback" not in done.stderr


async def test_functions_that_no_worker_can_import(shared: Cluster) -> None:
    @task
    def local(n: int) -> int:
        return n

    with pytest.raises(NotImportable, match="move it to module level"):
        await shared.map(local, [1])
    async with Cluster(inline=True) as inline:
        assert await inline.map(local, [1]) == [1]


async def test_another_event_loop(cluster: Cluster) -> None:
    async def use() -> list[bool]:
        return await cluster.map(functions.is_prime, [7])

    with pytest.raises(ClusterClosed, match="another event loop"):
        await asyncio.to_thread(asyncio.run, use())
    assert await use() == [True]


async def test_inside_a_worker(shared: Cluster) -> None:
    (said,) = await shared.map(functions.own_cluster, [1])
    assert said.startswith("ClusterClosed: a Cluster cannot be used inside a worker")


async def test_closed_and_not_started() -> None:
    cluster = Cluster(inline=True)
    with pytest.raises(ClusterClosed, match="async with"):
        await cluster.map(functions.is_prime, [7])
    async with cluster:
        assert await cluster.map(functions.is_prime, [7]) == [True]
        with pytest.raises(ClusterClosed, match="started already"):
            await cluster._start()
    await cluster.aclose()
    with pytest.raises(ClusterClosed):
        cluster.stream(functions.is_prime, [7])


async def test_closing_ends_open_maps(shared: Cluster) -> None:
    async with Cluster(tasks=FUNCTIONS) as cluster:
        running = asyncio.ensure_future(cluster.map(functions.spin, [0.05] * 1000))
        await wait_until(lambda: cluster.stats.items_done > 2, "the map runs")
    with pytest.raises(ClusterClosed):
        await running


async def test_an_embedded_cluster_has_no_jobs(shared: Cluster) -> None:
    with pytest.raises(JobsUnavailable, match="jetmap up"):
        await shared.submit(functions.empty, [1])


@pytest.mark.slow
def test_prints_are_marked_with_their_item(tmp_path: Path) -> None:
    code = """
from functions import say
from jetmap import Cluster
if __name__ == "__main__":
    with Cluster().sync as cluster:
        cluster.map(say, ["zero", "one"])
"""
    with nothing_left():
        done = run_python(code, cwd=tmp_path)
    assert done.stdout == ""
    for index, text in enumerate(["zero", "one"]):
        lines = [line for line in done.stderr.splitlines() if f" item {index}] " in line]
        said = [line.partition("] ")[2] for line in lines]
        assert said == [text, f"{text} to stderr"]
