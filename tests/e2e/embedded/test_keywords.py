"""Keyword parameters that do not fit are refused before anything runs."""

from __future__ import annotations

import json

import msgspec
import pytest

import functions
from fake_cluster import FakeCluster, gateway
from jetmap import Cluster, UnknownFunction
from jobs_over_http import site
from over_http import JSONL, MSGPACK, SSE, check_problem

pytestmark = pytest.mark.anyio


def scaled(n: int, *, by: int) -> int:
    return n * by


@pytest.mark.parametrize(
    ("headers", "query", "keyword", "items"),
    [
        ({}, "", "by", []),
        (JSONL, '?kwargs={"bye":1}', "bye", [1, 2]),
        (SSE, '?kwargs={"by":"1"}', "by", [1, 2]),
        (MSGPACK, "?kwargs={}", "by", [1, 2]),
        ({"prefer": "respond-async"}, "", "by", [1, 2]),
    ],
)
async def test_map_over_http(
    headers: dict[str, str], query: str, keyword: str, items: list[int]
) -> None:
    cluster, jobs = site(scaled)
    cluster.service = jobs
    body = msgspec.msgpack.encode(items) if headers is MSGPACK else json.dumps(items).encode()
    headers = {"content-type": "application/json", **headers}
    async with gateway(cluster) as client:
        response = await client.post(f"/map/scaled{query}", content=body, headers=headers)
    problem = check_problem(response, 400, "bad-parameter")
    assert (problem["parameter"], problem["keyword"]) == ("kwargs", keyword)
    assert "it takes by (integer)" in problem["detail"]
    assert not cluster.runs and not jobs.begun


async def test_map_that_waited_for_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(scaled)
    told = iter([None, cluster.info("scaled")])
    monkeypatch.setattr(cluster, "info", lambda name: next(told))
    async with gateway(cluster) as client:
        check_problem(await client.post("/map/scaled", json=[1]), 400, "bad-parameter")
    assert cluster.runs[0].withdrawn.is_set()


async def test_job_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, jobs = site(scaled)
    async with gateway(cluster) as client:
        response = await client.post('/jobs/scaled?kwargs={"by":1,"x":2}', json=[1])
        problem = check_problem(response, 400, "bad-parameter")
        assert (problem["parameter"], problem["keyword"]) == ("kwargs", "x")
        assert not jobs.begun
        told = iter([None, cluster.info("scaled")])
        monkeypatch.setattr(cluster, "info", lambda name: next(told))
        check_problem(await client.post("/jobs/scaled", json=[1]), 400, "bad-parameter")
    assert all(record.state == "deleted" for record in jobs.records.values())


async def test_real_functions(inline: Cluster) -> None:
    async with gateway(inline) as client:  # type: ignore[arg-type]
        response = await client.post('/map/scale?kwargs={"by":3}', json=[1, 2])
        assert response.json() == [3, 6]
        check_problem(await client.post("/map/scale", json=[1, 2]), 400, "bad-parameter")
        check_problem(await client.post("/map/nobodys", json=[1]), 404, "unknown-function")


async def test_by_name_in_python(shared: Cluster) -> None:
    assert await shared.map("scale", [1, 2], kwargs={"by": 3}) == [3, 6]
    for kwargs in ({}, {"bye": 1}, {"by": 1, "plus": 2, "more": 3}):
        with pytest.raises(TypeError, match=r"keyword parameters of scale: .* it takes by"):
            await shared.map("scale", [1, 2], kwargs=kwargs)
        with pytest.raises(TypeError, match="keyword parameters of scale"):
            async for _ in shared.stream("scale", [], kwargs=kwargs):
                pass
        with pytest.raises(TypeError, match="keyword parameters of scale"):
            await shared.map(functions.scale, [1], kwargs=kwargs)
    with pytest.raises(UnknownFunction):
        await shared.map("nobodys", [1], kwargs={"by": 1})
