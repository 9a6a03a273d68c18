"""Metrics, as Prometheus reads them."""

from __future__ import annotations

import pytest

from activities import activity, map_of
from announcements import presence
from fake_cluster import FakeCluster, gateway
from jetmap.dispatch.costs import Cost
from jetmap.dispatch.stats import Histogram
from jetmap.wire.controls import FunctionControl, PoolControl
from jetmap.wire.presence import FunctionInfo
from jetmap_api.metrics import _histogram
from over_http import double

pytestmark = pytest.mark.anyio


async def test_both_pages_are_text() -> None:
    async with gateway(FakeCluster(double)) as client:
        await client.post("/map/double", json=[1, 2])
        own, pool = await client.get("/metrics"), await client.get("/metrics/pool")
        open = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        odd = await client.get("/metrics", headers={"accept": "text/plain;version=x"})
    assert "jetmap_maps_started_total 1.0" in own.text
    assert 'jetmap_requests_total{code="200"} 1.0' in own.text
    assert "jetmap_pool_cores 2.0" in pool.text
    assert open.text.endswith("# EOF\n") and odd.status_code == 200


async def test_the_pools_page_has_what_all_callers_announce() -> None:
    cluster = FakeCluster(double)
    cluster.watch.hear(
        activity("d1", maps=[map_of("m1", oldest=7.0)], refused={"no-workers": 2}, waiting=5),
        activity("d2", maps=[map_of("m2")], more=3, waiting_seconds=1.5),
    )
    cluster.watch.pool.on_broker(
        {"streams": [{"copies": 3, "leader": ""}], "store": {"bytes": 9, "quota": 10}}
    )
    cluster.watch.pool.control = PoolControl(True, {"f": FunctionControl(True, 3)})
    limited = [FunctionInfo("g", max_parallel=4), FunctionInfo("h")]
    cluster.watch.pool.on_agents([presence("a", functions=limited)], 1.0)
    async with gateway(cluster) as client:
        text = (await client.get("/metrics/pool")).text
        own = (await client.get("/metrics")).text
    for line in (
        "jetmap_pool_callers 2.0",
        "jetmap_pool_open_maps 5.0",
        "jetmap_pool_waiting_items 5.0",
        "jetmap_pool_waiting_seconds 1.5",
        "jetmap_pool_oldest_wait_seconds 7.0",
        'jetmap_pool_maps_refused_recently{reason="no-workers"} 2.0',
        'jetmap_pool_maps_refused_recently{reason="closed"} 0.0',
        "jetmap_pool_paused 1.0",
        'jetmap_pool_function_paused{function="f"} 1.0',
        'jetmap_pool_function_max_cores{function="f"} 3.0',
        'jetmap_pool_function_max_cores{function="g"} 4.0',
        "jetmap_pool_store_bytes 9.0",
        "jetmap_pool_streams_without_leader 1.0",
    ):
        assert line in text, line
    assert "m1" not in text and "jetmap_pool" not in own, "no map is a label"
    names = [
        {line.split("{")[0].split()[0] for line in page.splitlines() if line[0] != "#"}
        for page in (text, own)
    ]
    assert not names[0] & names[1], "each is on one page, so that sums over gateways are right"


async def test_an_items_seconds_are_a_histogram_of_each_function() -> None:
    cluster, cost = FakeCluster(double), Cost()
    cost.learn(3, 0.06, 9)  # 20 ms each
    cost.learn(1, 2.0, 9)
    cluster.costs = {"double": cost, "idle": Cost()}
    async with gateway(cluster) as client:
        text = (await client.get("/metrics")).text
    assert 'jetmap_item_seconds_bucket{function="double",le="0.0316"} 3.0' in text
    assert 'jetmap_item_seconds_bucket{function="double",le="0.01"} 0.0' in text
    assert 'jetmap_item_seconds_bucket{function="double",le="+Inf"} 4.0' in text
    assert 'jetmap_item_seconds_sum{function="double"} 2.06' in text and "idle" not in text


def test_buckets_become_running_sums() -> None:
    histogram = Histogram((1.0, 10.0))
    for value in (histogram.buckets[0] / 2, histogram.buckets[0] / 2, histogram.buckets[-1] * 2):
        histogram.observe(value)
    (metric,) = [_histogram("seconds", "Seconds.", histogram)]
    counts = [s.value for s in metric.samples if s.name == "seconds_bucket"]
    assert counts[0] == 2 and counts[-2] == 2 and counts[-1] == 3
