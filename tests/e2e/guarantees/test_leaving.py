"""Leaving a map frees its cores, however it is left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import functions
from callers import Caller
from jetmap import Cluster
from load import orders
from servers import CORES, AgentProcess, Site, executions, starts
from waiting import until, wait_for, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster(home_cluster: Cluster) -> Cluster:
    return home_cluster


async def test_leaving_frees_the_cores(
    home: Site, cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    other = asyncio.ensure_future(cluster.map(functions.spin, [0.01] * 100))
    log = tmp_path / "log"
    items = [(n, 0.05) for n in range(2000)]
    kwargs = {"log": str(log)}
    running = asyncio.ensure_future(cluster.map(functions.logged, items, kwargs=kwargs))
    stream = cluster.stream(functions.logged, items, kwargs=kwargs)
    assert (await anext(stream)).ok
    await wait_until(lambda: len(starts(log)) >= 10, "both run")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    del stream
    assert await other == [0.01] * 100
    await home.until_busy(cluster, 0)
    begun = len(starts(log))
    # Nothing of them is left anywhere: what comes later runs alone.
    assert await cluster.map(functions.empty, range(100)) == list(range(100))
    assert len(starts(log)) == begun < 2000
    assert cluster.stats.maps_open == 0


async def test_leaving_some_of_many_small_maps(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    # A cancel never hits another map's work, though they share messages and workers.
    log = tmp_path / "log"
    maps = [
        asyncio.ensure_future(cluster.map(functions.logged, [(n, 0.01)], kwargs={"log": str(log)}))
        for n in range(200)
    ]
    await wait_until(lambda: len(starts(log)) >= 10, "they run")
    for n in range(0, 200, 2):
        maps[n].cancel()
    kept = await asyncio.gather(*maps[1::2])
    assert kept == [[n] for n in range(1, 200, 2)]
    counts = executions(log)
    assert all(counts[n] >= 1 for n in range(1, 200, 2)) and sum(counts.values()) < 200


async def test_leaving_stops_what_does_not_end_by_itself(
    home: Site, cluster: Cluster, agent: AgentProcess
) -> None:
    before = {worker.pid for worker in agent.workers}
    maps = [
        asyncio.ensure_future(cluster.map(functions.hurt, orders(10, {0: how})))
        for how in ("loop", "hold:600")
    ]

    async def both_hang() -> bool:
        """Each is in the first item of another map: the other items wait behind it."""
        found = await home.workers(cluster)
        return len({core.map for each in found for core in each.workers if core.map}) == CORES

    await wait_for(both_hang, "both hang")
    for running in maps:
        running.cancel()

    def replaced() -> bool:
        return len(agent.workers) == CORES and before.isdisjoint(w.pid for w in agent.workers)

    await wait_until(replaced, "the workers are replaced")
    assert await cluster.map(functions.empty, range(100)) == list(range(100))


@pytest.mark.slow
async def test_a_frozen_caller_loses_nothing(
    home: Site, agent: AgentProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with Caller.on(home, log, [(n, 0.03) for n in range(300)]) as caller:
        await wait_until(lambda: len(starts(log)) > 20, "the map runs")
        caller.freeze()
        await until(time.monotonic() + 14)
        caller.thaw()
        assert (await caller.said()).values == list(range(300))
