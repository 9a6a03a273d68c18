"""Limits of time are real, whatever a function does meanwhile."""

from __future__ import annotations

import time

import pytest

import functions
from jetmap import Cluster, ItemTimeout, MapTimeout
from load import orders
from servers import AgentProcess, Site, check

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster(home_cluster: Cluster) -> Cluster:
    return home_cluster


@pytest.mark.parametrize("how", ["loop", "hold:60"])
async def test_an_items_timeout(cluster: Cluster, agent: AgentProcess, how: str) -> None:
    bad = {0: how, 150: how, 299: how}
    began = time.monotonic()
    values = await cluster.map(functions.limited, orders(300, bad), return_exceptions=True)
    check(values, range(300), dict.fromkeys(bad, ItemTimeout))
    assert "timeout of 0.4 s" in values[0].message
    assert time.monotonic() - began < 25


async def test_a_maps_timeout_stops_what_holds_the_gil(
    home: Site, cluster: Cluster, agent: AgentProcess
) -> None:
    with pytest.raises(MapTimeout):
        await cluster.map(functions.hurt, orders(10, {0: "hold:60", 1: "loop"}), timeout=0.5)
    await home.until_busy(cluster, 0, 1)
    assert await cluster.map(functions.empty, range(100)) == list(range(100))
