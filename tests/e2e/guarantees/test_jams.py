"""Small chunks travel together; none waits behind one that is not small after all."""

from __future__ import annotations

import asyncio

import pytest

import functions
from jetmap import Cluster
from load import orders
from servers import CORES, AgentProcess, Site
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster(home_cluster: Cluster) -> Cluster:
    return home_cluster


async def test_small_maps_at_once_of_which_one_is_stuck(
    cluster: Cluster, agent: AgentProcess
) -> None:
    await cluster.map(functions.hurt, orders(500, {}))  # Its items are known to be small.
    maps = [
        asyncio.ensure_future(cluster.map(functions.hurt, [(n, "sleep:600" if n == 7 else "")]))
        for n in range(100)
    ]
    stuck = maps.pop(7)
    await wait_until(lambda: all(each.done() for each in maps), "all others end")
    assert not stuck.done()
    assert await asyncio.gather(*maps) == [[n] for n in range(100) if n != 7]
    stuck.cancel()


async def test_what_was_handed_on_can_be_withdrawn(
    home: Site, cluster: Cluster, agent: AgentProcess
) -> None:
    # All cores are stuck, and behind each waits something.
    await cluster.map(functions.hurt, orders(500, {}))
    maps = [
        asyncio.ensure_future(cluster.map(functions.hurt, [(n, "sleep:600" if n < 4 else "")]))
        for n in range(100)
    ]
    await home.until_busy(cluster, CORES)
    for n, each in enumerate(maps):
        if n < 4 or n % 2:
            each.cancel()
    kept = [each for n, each in enumerate(maps) if not (n < 4 or n % 2)]
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*kept) == [[n] for n in range(4, 100, 2)]
