"""Keyword parameters that do not fit are refused before anything runs."""

from __future__ import annotations

import json
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, Field

import functions
from fake_cluster import FakeCluster, gateway
from jetmap import Cluster, UnknownFunction
from jetmap.functions.function import Function
from jetmap.functions.kwargs import misfit
from jetmap.wire.presence import FunctionInfo
from jobs_over_http import site
from over_http import JSONL, MSGPACK, SSE, check_problem

pytestmark = pytest.mark.anyio


class Colour(Enum):
    RED = "red"


class Model(BaseModel):
    x: int


def plain(n: int) -> int:
    return n


def native(
    n: int, *, by: int, at: float = 0, flag: bool = False, name: str | None = None,
    parts: tuple[int, ...] = (), table: dict[str, int] | None = None, colour: Colour = Colour.RED,
    mode: Literal["a", "b"] = "a", day: date = date.min, data: bytes = b"", any: Any = None,
) -> int:  # fmt: skip
    return n


def validated(n: int, *, count: Annotated[int, Field(ge=0)], model: Model | None = None) -> int:
    return n


def info(f: Any) -> FunctionInfo:
    return Function(f).info()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"by": 1},
        {"by": 1, "at": 2, "flag": True, "name": None, "parts": [1], "table": {"a": 1}},
        {"by": 1, "at": 2.5, "name": "x", "colour": "red", "mode": "b", "day": "2020-01-01"},
        {"by": 1, "data": "AAAA", "any": {"a": []}},
        {"by": 1, "any": None},
    ],
)
def test_what_fits(kwargs: dict[str, Any]) -> None:
    assert misfit(info(native), kwargs) is None
    # What is let through is what the worker takes.
    Function(native).kwargs.decode(json.dumps(kwargs).encode(), "json")


@pytest.mark.parametrize(
    ("kwargs", "parameter", "told"),
    [
        ({}, "by", "native() needs the parameter 'by'; it takes by (integer), at (number, opt"),
        ({"by": 1, "bye": 1}, "bye", "native() has no parameter 'bye'; it takes by (integer), at"),
        ({"by": "1"}, "by", "'by' of native() must be integer; it takes"),
        ({"by": 1.0}, "by", "integer"),
        ({"by": True}, "by", "integer"),
        ({"by": None}, "by", "integer"),
        ({"by": 1, "at": "2"}, "at", "'at' of native() must be number"),
        ({"by": 1, "flag": 1}, "flag", "boolean"),
        ({"by": 1, "name": 5}, "name", "'name' of native() must be string or null"),
        ({"by": 1, "parts": {}}, "parts", "array"),
        ({"by": 1, "table": []}, "table", "object"),
        ({"by": 1, "colour": "blue"}, "colour", "one of 'red'"),
        ({"by": 1, "mode": "c"}, "mode", "one of 'a', 'b'"),
        ({"by": 1, "day": 5}, "day", "string"),
    ],
)
def test_what_does_not(kwargs: dict[str, Any], parameter: str, told: str) -> None:
    found = misfit(info(native), kwargs)
    assert found is not None
    assert found.parameter == parameter
    assert told in found.message
    with pytest.raises(ValueError):
        Function(native).kwargs.decode(json.dumps(kwargs).encode(), "json")


def test_of_pydantic_types() -> None:
    described = info(validated)
    assert misfit(described, {"count": 1, "model": {"x": 1}}) is None
    assert misfit(described, {"count": 1, "model": None}) is None
    for kwargs, wrong in (({}, "count"), ({"count": "1"}, "count"), ({"count": 1, "m": 1}, "m")):
        found = misfit(described, kwargs)
        assert found is not None and found.parameter == wrong


def test_without_parameters() -> None:
    assert misfit(info(plain), {}) is None
    found = misfit(info(plain), {"by": 1})
    assert found is not None
    assert found.message == "plain() has no parameter 'by'; it takes no keyword parameters"
    assert misfit(FunctionInfo("undescribed"), {"by": 1}) is None


def scaled(n: int, *, by: int) -> int:
    return n * by


@pytest.mark.parametrize("headers", [{}, JSONL, SSE, MSGPACK, {"prefer": "respond-async"}])
@pytest.mark.parametrize(
    ("query", "keyword"),
    [("", "by"), ('?kwargs={"bye":1}', "bye"), ('?kwargs={"by":"1"}', "by"), ("?kwargs={}", "by")],
)
@pytest.mark.parametrize("items", [[], [1, 2]])
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
