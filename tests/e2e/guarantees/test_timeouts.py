"""Limits of time are real, whatever a function does meanwhile."""

from __future__ import annotations

import pytest

import functions
from jetmap import Cluster, ItemTimeout, MapTimeout
from load import orders
from servers import Site, check

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def cluster(home: Site, home_cluster: Cluster) -> Cluster:
    # A function's first call in a worker may take this longer.
    await home.agent(home_cluster, functions.__file__, "--start-timeout", "8")
    return home_cluster


async def test_an_items_timeout(cluster: Cluster) -> None:
    bad = {0: "hold:600", 150: "loop", 299: "hold:600"}
    values = await cluster.map(functions.limited, orders(300, bad), return_exceptions=True)
    check(values, range(300), dict.fromkeys(bad, ItemTimeout))
    assert "timeout of 0.4 s" in values[0].message


async def test_a_maps_timeout_stops_what_holds_the_gil(home: Site, cluster: Cluster) -> None:
    with pytest.raises(MapTimeout):
        await cluster.map(functions.hurt, orders(10, {0: "hold:600", 1: "loop"}), timeout=0.5)
    await home.until_busy(cluster, 0)
    assert await cluster.map(functions.empty, range(100)) == list(range(100))
