"""Metrics, as Prometheus reads them."""

from __future__ import annotations

import pytest

from fake_cluster import FakeCluster, gateway
from jetmap.dispatch.stats import Histogram
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


def test_buckets_become_running_sums() -> None:
    histogram = Histogram((1.0, 10.0))
    for value in (histogram.buckets[0] / 2, histogram.buckets[0] / 2, histogram.buckets[-1] * 2):
        histogram.observe(value)
    (metric,) = [_histogram("seconds", "Seconds.", histogram)]
    counts = [s.value for s in metric.samples if s.name == "seconds_bucket"]
    assert counts[0] == 2 and counts[-2] == 2 and counts[-1] == 3
