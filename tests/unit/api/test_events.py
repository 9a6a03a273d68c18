"""A map's events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from exchange import Exchange
from fake_cluster import FakeCluster, gateway
from over_http import (
    SSE,
    check_problem,
    double,
    events_of,
    never,
    picky,
)
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio


async def test_events_tell_start_results_and_done() -> None:
    url = '/map/picky?errors=collect&kwargs={"bad":[1]}'
    async with gateway(FakeCluster(picky, chunk=2)) as client:
        response = await client.post(url, json=[0, 1, 2], headers=SSE)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    (start, begun), (one, first), (two, second), (last, end) = events_of(response)
    assert (start, one, two, last) == ("start", "results", "results", "done")
    assert begun["total"] == 3
    assert begun["map"]
    assert first["start"] == 0
    assert first["values"] == [0, None]
    assert [e["index"] for e in first["errors"]] == [1]
    assert (first["done"], first["total"]) == (2, 3)
    assert second == {"start": 2, "values": [2], "errors": [], "done": 3, "total": 3}
    assert (end["done"], end["failed"]) == (3, 1)
    assert end["seconds"] >= 0


async def test_events_end_with_failed() -> None:
    cluster = FakeCluster(double, never, chunk=2)
    async with gateway(cluster) as client:
        invalid = await client.post("/map/double", json=[1, 2, "x", 4, 5], headers=SSE)
        asked = await client.post("/map/double?errors=fail", json=["x"], headers=SSE)
        unknown = await client.post("/map/nothing", json=[1], headers=SSE)
        late = await client.post("/map/never?timeout=0.02", json=[1], headers=SSE)
    *_, (result, values), (last, problem) = events_of(invalid)
    assert [name for name, _ in events_of(invalid)] == ["start", "results", "failed"]
    assert (result, values["values"], values["errors"]) == ("results", [2, 4], [])
    assert (last, problem["type"], problem["status"]) == ("failed", "urn:jetmap:item-invalid", 422)
    assert (problem["error"]["index"], problem["error"]["kind"]) == (2, "invalid")
    assert cluster.runs[0].withdrawn.is_set()
    assert cluster.runs[0].taken == 4
    assert [name for name, _ in events_of(asked)] == ["start", "failed"]
    check_problem(unknown, 404, "unknown-function")
    assert events_of(late)[1][1]["status"] == 504


async def test_the_total_is_null_while_the_body_arrives() -> None:
    more = asyncio.Event()

    def watched(n: int) -> int:
        more.set()
        return n

    async def body() -> Any:
        yield b"1\n"
        await more.wait()
        yield b"2\n"

    headers = SSE | {"content-type": "application/jsonl"}
    async with gateway(FakeCluster(watched)) as client:
        response = await client.post("/map/watched", content=body(), headers=headers)
    events = events_of(response)
    assert events[0][1]["total"] is None
    assert next(e["total"] for name, e in events if name == "results") is None
    assert events[-1] == ("done", events[-1][1])


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetmap_api.streams.HEARTBEAT", 0.02)
    exchange = Exchange(FakeCluster(never), "/map/never", accept=SSE["accept"])
    await exchange.write(b"[1]", more=False)
    await wait_until(lambda: b": still running\n\n" in exchange.output, "a comment comes")
    assert exchange.output.startswith(b"event: start\n")
    await exchange.leave()
    await asyncio.wait_for(exchange.task, PATIENCE)
