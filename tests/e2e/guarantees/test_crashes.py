"""A crash costs one item: workers that really die in the middle of maps.

Each test compares every item's outcome with what went in, and fails if a process is left.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster, ItemError, ItemRaised, WorkerLost
from load import orders
from servers import CORES, AgentProcess, check, executions, is_ready, presence, starts
from waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster(home_cluster: Cluster) -> Cluster:
    return home_cluster


async def test_what_crashed_once_and_then_succeeds_is_a_success(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    bad = {3: "exit", 700: "segfault", 1999: "kill"}
    values = await cluster.map(functions.hurt_once, orders(2000, bad), kwargs={"marks": str(marks)})
    assert values == list(range(2000))


async def test_one_raises_and_three_kill(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    bad = {100: "raise", 400: "exit", 900: "segfault", 1600: "kill"}
    items = [functions.Order(n, how=bad.get(n, "")) for n in range(2000)]
    values = await cluster.map(
        functions.obey, items, kwargs={"log": str(log)}, return_exceptions=True
    )
    check(values, range(2000), {n: ItemRaised if n == 100 else WorkerLost for n in bad})
    assert sum(not isinstance(value, ItemError) for value in values) == 1996
    ends = {n: (values[n].signal, values[n].exit_code) for n in bad if n != 100}
    assert ends == {400: (None, 3), 900: (signal.SIGSEGV, None), 1600: (signal.SIGKILL, None)}
    assert all(values[n].host and (values[n].peak_memory or 0) > 1 << 20 for n in ends)
    # Each attempt cost one worker, and nothing else did.
    lost = {index: values[index].attempts for index in bad if index != 100}
    assert lost == dict.fromkeys(lost, 2)
    assert {index: executions(log)[index] for index in lost} == lost
    await agent_settled(cluster, agent)
    deaths = len({start.pid for start in starts(log)} - {w.pid for w in agent.workers})
    assert deaths == sum(lost.values())


async def agent_settled(cluster: Cluster, agent: AgentProcess) -> None:
    """Wait until as many workers run as there are cores."""
    await wait_until(
        lambda: len(agent.workers) == CORES and is_ready(cluster, agent), "workers are replaced"
    )


async def test_a_crash_is_no_business_of_other_maps(cluster: Cluster, agent: AgentProcess) -> None:
    good = [asyncio.ensure_future(cluster.map(functions.spin, [0.002] * 300)) for _ in range(3)]
    bad = dict.fromkeys(range(0, 100, 20), "exit")
    values = await cluster.map(functions.hurt, orders(100, bad), return_exceptions=True)
    check(values, range(100), dict.fromkeys(bad, WorkerLost))
    assert await asyncio.gather(*good) == [[0.002] * 300] * 3


async def test_small_maps_at_once_of_which_some_go_wrong(
    cluster: Cluster, agent: AgentProcess
) -> None:
    # They share messages; what goes wrong in one must not touch the others.
    def small(n: int) -> Awaitable[list[Any]]:
        how = ("exit" if n % 40 == 7 else "raise") if n % 20 == 7 else ""
        items = [(n, how), (n + 1000, "")]
        return cluster.map(functions.hurt, items, return_exceptions=True)

    for n, values in enumerate(await asyncio.gather(*[small(n) for n in range(200)])):
        kind = WorkerLost if n % 40 == 7 else ItemRaised
        check(values, [n, n + 1000], {0: kind} if n % 20 == 7 else {})


async def test_an_idle_worker_that_dies_is_replaced(cluster: Cluster, agent: AgentProcess) -> None:
    before = {worker.pid for worker in agent.workers}
    for worker in agent.workers:
        worker.kill()

    def replaced() -> bool:
        now = {worker.pid for worker in agent.workers}
        found = presence(cluster, agent)
        if found is None or found.ready < CORES:
            return False
        return len(now) == CORES and now.isdisjoint(before)

    await wait_until(replaced, "new workers are ready")
    numbers = range(1000)
    assert await cluster.map(functions.empty, numbers) == list(numbers)
