"""Probes: the process answers, and a map would run."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from activities import activity
from fake_cluster import FakeCluster, gateway
from jetmap_api.health import readyz
from over_http import double

pytestmark = pytest.mark.anyio


async def test_a_gateway_is_ready_with_a_broker_and_a_worker() -> None:
    cluster = FakeCluster(double)
    async with gateway(cluster) as client:
        assert (await client.get("/readyz")).json() == {"status": "ok"}
        cluster.connected = False
        away = await client.get("/readyz")
        assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (away.status_code, away.headers["retry-after"]) == (503, "1")
    assert away.json() == {"status": "unavailable", "missing": "broker"}
    assert away.headers["cache-control"] == "no-store"


async def test_without_a_cluster_it_is_starting() -> None:
    answer = await readyz(Request({"type": "http", "headers": []}))
    assert (answer.status_code, bytes(answer.body)) == (
        503,
        b'{"status":"starting","missing":"cluster"}',
    )


async def test_a_scaler_gets_what_waits_and_the_cores_that_are_wanted() -> None:
    cluster = FakeCluster(double)
    cluster.watch.hear(activity(waiting=10, waiting_seconds=90.0), agents=cluster.workers)
    async with gateway(cluster, scale_seconds=10) as client:
        answer = await client.get("/scale")
    assert answer.json() == {
        "backlog_seconds": 90.0,
        "unknown_items": 0,
        "cores": 2,
        "wanted_cores": 1 + 9,
    }
    assert answer.headers["cache-control"] == "no-store"
