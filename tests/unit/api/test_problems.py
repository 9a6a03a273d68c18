"""Refusals of a map's request, and the status of every error."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fake_cluster import FakeCluster, gateway
from jetmap import errors
from jetmap_api.problems import problem_of
from over_http import (
    SSE,
    check_problem,
    double,
)

pytestmark = pytest.mark.anyio


async def test_prefer_is_ignored_without_a_store() -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", json=[1], headers={"prefer": "respond-async"})
    assert response.json() == [2]


async def test_a_body_over_its_limit_is_413_before_it_is_read() -> None:
    reads = 0

    async def body() -> Any:
        nonlocal reads
        for _ in range(50):
            reads += 1
            yield b"[" + b" " * 99

    headers = {"content-type": "application/json"}
    async with gateway(FakeCluster(double), max_body_bytes=1000) as client:
        known = await client.post("/map/double", content=b" " * 1001, headers=headers)
        unknown = await client.post("/map/double", content=body(), headers=headers)
    for response in (known, unknown):
        assert check_problem(response, 413, "limit-exceeded")["setting"] == "max_body_bytes"
    assert reads < 20


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (errors.UnknownFunction("never heard of it"), 404, "unknown-function"),
        (errors.NoWorkers("none alive"), 503, "no-workers"),
        (errors.BrokerUnreachable("no broker"), 503, "no-broker"),
        (errors.TooManyMaps("full", setting="max_open_maps", limit=1), 429, "too-many-maps"),
        (errors.LimitExceeded("large", setting="max_list", limit=1), 413, "limit-exceeded"),
        (errors.ClusterClosed("closed"), 503, "closed"),
        (errors.MapTimeout("late"), 504, "timeout"),
        (errors.TopologyMismatch("differs"), 500, "failed"),
        (errors.ItemTimeout(3, "ItemTimeout", "slow"), 504, "item-timeout"),
        (errors.WorkerLost(3, "SIGSEGV", "died"), 500, "worker-lost"),
        (errors.Unencodable(3, "ValueError", "NaN"), 500, "item-unencodable"),
        (
            errors.Unencodable(3, "TypeError", "annotate f", detail={"untyped": True}),
            406,
            "pickled-values",
        ),
        (errors.JobUnreadable("job j: delete the job"), 409, "job-unreadable"),
        (RuntimeError("secret"), 500, "internal"),
    ],
)
async def test_every_error_has_its_status(
    error: Exception, status: int, slug: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = FakeCluster(double)
    cluster.refuse = error
    with caplog.at_level(logging.CRITICAL, "jetmap_api"):
        async with gateway(cluster) as client:
            response = await client.post("/map/double", json=[1], headers=SSE)
    problem = check_problem(response, status, slug)
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert "secret" not in problem["detail"]
    if isinstance(error, errors.ItemError):
        assert problem["error"]["index"] == 3


async def test_a_failed_start_shows_its_traceback_with_debug_only() -> None:
    trace = "no worker can start:\nTraceback (most recent call last):\n  File x\nSyntaxError: bad"
    error = errors.WorkerStartFailed(trace)
    assert problem_of(error, False).detail == "no worker can start: SyntaxError: bad"
    assert problem_of(error, True).detail == trace
