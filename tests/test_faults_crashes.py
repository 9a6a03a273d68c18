"""A crash costs one item: workers that really die in the middle of maps.

Each test compares every item's outcome with what went in, and fails if a process is left.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster, ItemRaised, ItemTimeout, WorkerLost
from load import Load, orders
from support import (
    CORES,
    FUNCTIONS,
    AgentProcess,
    Site,
    check,
    executions,
    presence,
)
from waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster(home_cluster: Cluster) -> Cluster:
    return home_cluster


@pytest.mark.parametrize(
    ("how", "signal_number", "exit_code"),
    [("exit:7", None, 7), ("segfault", signal.SIGSEGV, None), ("kill", signal.SIGKILL, None)],
    ids=["exit", "segfault", "kill"],
)
async def test_a_crash_costs_one_item(
    cluster: Cluster,
    agent: AgentProcess,
    how: str,
    signal_number: int | None,
    exit_code: int,
) -> None:
    bad = {0: how, 4999: how, 5000: how, 9999: how}
    values = await cluster.map(functions.hurt, orders(10_000, bad), return_exceptions=True)
    check(values, range(10_000), dict.fromkeys(bad, WorkerLost))
    for index in bad:
        error = values[index]
        assert isinstance(error, WorkerLost)
        assert (error.signal, error.exit_code) == (signal_number, exit_code)
        assert error.attempts == 2 and error.host and (error.peak_memory or 0) > 1 << 20
    assert await cluster.map(functions.is_prime, [7]) == [True]


async def test_what_crashed_once_and_then_succeeds_is_a_success(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    bad = {3: "exit", 700: "segfault", 1999: "kill"}
    values = await cluster.map(functions.hurt_once, orders(2000, bad), kwargs={"marks": str(marks)})
    assert values == list(range(2000))


async def test_a_crash_runs_at_most_its_chunk_again(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    items = [functions.Order(n, 0.001, "exit" if n in (500, 1500) else "") for n in range(2000)]
    values = await cluster.map(
        functions.obey, items, kwargs={"log": str(log)}, return_exceptions=True
    )
    check(values, range(2000), {500: WorkerLost, 1500: WorkerLost})
    counts = executions(log)
    assert counts[500] == counts[1500] == 2
    # A chunk aims at 50 ms and ends after 100 ms; twice in each of two items is four crashes.
    again = sum(counts.values()) - 2000
    assert set(counts) == set(range(2000)) and again <= 4 * 100


async def test_one_raises_and_three_kill(cluster: Cluster, agent: AgentProcess) -> None:
    bad = {100: "raise", 400: "exit", 900: "segfault", 1600: "kill"}
    began = time.monotonic()
    values = await cluster.map(functions.hurt, orders(2000, bad), return_exceptions=True)
    took = time.monotonic() - began
    check(values, range(2000), {n: ItemRaised if n == 100 else WorkerLost for n in bad})
    assert took < 5, f"it took {took:.2f} s"


async def test_a_crash_is_no_business_of_other_maps(cluster: Cluster, agent: AgentProcess) -> None:
    good = [asyncio.ensure_future(cluster.map(functions.spin, [0.002] * 300)) for _ in range(3)]
    bad = dict.fromkeys(range(0, 100, 20), "exit")
    values = await cluster.map(functions.hurt, orders(100, bad), return_exceptions=True)
    check(values, range(100), dict.fromkeys(bad, WorkerLost))
    assert await asyncio.gather(*good) == [[0.002] * 300] * 3


@pytest.mark.parametrize("how", ["exit", "raise"])
async def test_small_maps_at_once_of_which_some_go_wrong(
    cluster: Cluster, agent: AgentProcess, how: str
) -> None:
    # They share messages; what goes wrong in one must not touch the others.
    def small(n: int) -> Awaitable[list[Any]]:
        items = [(n, how if n % 20 == 7 else ""), (n + 1000, "")]
        return cluster.map(functions.hurt, items, return_exceptions=True)

    kind = WorkerLost if how == "exit" else ItemRaised
    for n, values in enumerate(await asyncio.gather(*[small(n) for n in range(200)])):
        check(values, [n, n + 1000], {0: kind} if n % 20 == 7 else {})


async def test_small_maps_at_once_of_which_some_are_stuck(
    cluster: Cluster, agent: AgentProcess
) -> None:
    def small(n: int) -> Awaitable[list[Any]]:
        items = [(n, "loop" if n % 50 == 7 else "")]
        return cluster.map(functions.limited, items, return_exceptions=True)

    for n, values in enumerate(await asyncio.gather(*[small(n) for n in range(200)])):
        check(values, [n], {0: ItemTimeout} if n % 50 == 7 else {})


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


async def test_memory_beyond_the_limit_is_an_error_of_the_item(place: Site, own: Cluster) -> None:
    await place.agent(own, FUNCTIONS, "--worker-memory", "400MB")
    bad = {50: "memory:2000000000"}
    values = await own.map(functions.hurt, orders(100, bad), return_exceptions=True)
    check(values, range(100), {50: ItemRaised})
    assert values[50].type == "MemoryError"


async def test_recycled_workers_lose_nothing(place: Site, own: Cluster) -> None:
    agent = await place.agent(own, FUNCTIONS, "--recycle-chunks", "3")
    before = {worker.pid for worker in agent.workers}
    async with Load(own):
        await wait_until(
            lambda: before.isdisjoint(worker.pid for worker in agent.workers),
            "both workers are replaced",
        )
