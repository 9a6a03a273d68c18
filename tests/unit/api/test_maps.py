"""Lists in, lists out: in input order, in both encodings, with every failing item's error."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest

from fake_cluster import FakeCluster, gateway
from over_http import (
    MSGPACK,
    check_problem,
    double,
    echo,
    never,
    picky,
)
from waiting import PATIENCE

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 100])
async def test_a_list_comes_back_in_input_order(count: int, swap: bool) -> None:
    async with gateway(FakeCluster(double, swap=swap)) as client:
        response = await client.post("/map/double", json=list(range(count)))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == [n * 2 for n in range(count)]


async def test_messagepack_in_and_out_keeps_bytes_and_nan() -> None:
    items = [b"\x00\xff", math.inf, "text", {"a": b"b"}, 2**63]
    async with gateway(FakeCluster(echo, swap=True)) as client:
        response = await client.post(
            "/map/echo", content=msgspec.msgpack.encode(items), headers=MSGPACK
        )
    assert response.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(response.content) == items


@pytest.mark.parametrize("media", ["application/vnd.msgpack", "application/x-msgpack"])
async def test_json_in_and_messagepack_out(media: str) -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", json=[1, 2, 3, 4], headers={"accept": media})
    assert msgspec.msgpack.decode(response.content) == [2, 4, 6, 8]


async def test_messagepack_in_and_json_out_never_shows_nan_as_null() -> None:
    body = msgspec.msgpack.encode([1.5, math.nan, b"abc", None])
    headers = {"content-type": "application/msgpack"}
    async with gateway(FakeCluster(echo)) as client:
        failed = await client.post("/map/echo", content=body, headers=headers)
        collected = await client.post("/map/echo?errors=collect", content=body, headers=headers)
    assert check_problem(failed, 500, "item-unencodable")["error"]["index"] == 1
    document = collected.json()
    assert document["values"] == [1.5, None, "YWJj", None]
    assert [(e["index"], e["kind"]) for e in document["errors"]] == [(1, "unencodable")]


async def test_the_first_failing_item_in_input_order_is_the_lists_problem() -> None:
    cluster = FakeCluster(picky, chunk=2, swap=True)
    async with gateway(cluster) as client:
        response = await client.post('/map/picky?kwargs={"bad":[1,2,9]}', json=list(range(12)))
    problem = check_problem(response, 500, "item-raised")
    assert problem["error"] == {
        "index": 1,
        "kind": "raised",
        "type": "ValueError",
        "message": "no 1",
    }
    await asyncio.wait_for(cluster.runs[0].withdrawn.wait(), PATIENCE)


async def test_an_item_of_another_type_is_422() -> None:
    async with gateway(FakeCluster(double)) as client:
        for item in ("7", 7.5, None):
            response = await client.post("/map/double", json=[1, item])
            problem = check_problem(response, 422, "item-invalid")
            assert problem["error"]["index"] == 1


async def test_tracebacks_are_shown_with_debug_only() -> None:
    url = '/map/picky?errors=collect&kwargs={"bad":[0]}'
    async with gateway(FakeCluster(picky)) as client:
        plain = (await client.post(url, json=[0])).json()
    async with gateway(FakeCluster(picky), debug=True) as client:
        debug = (await client.post(url, json=[0])).json()
    assert "traceback" not in plain["errors"][0]
    assert debug["errors"][0]["traceback"].startswith("Traceback")


async def test_a_map_over_its_time_is_504() -> None:
    cluster = FakeCluster(never)
    async with gateway(cluster) as client:
        response = await client.post("/map/never?timeout=0.05", json=[1])
    check_problem(response, 504, "timeout")
    assert cluster.runs[0].withdrawn.is_set()


async def test_a_list_that_outgrows_memory_is_spooled() -> None:
    items = ["x" * 50] * 100
    async with gateway(FakeCluster(echo, swap=True), max_buffer_bytes=1000) as client:
        plain = await client.post("/map/echo", json=items)
        collected = await client.post("/map/echo?errors=collect", json=items)
        packed = await client.post(
            "/map/echo", json=items, headers=MSGPACK | {"content-type": "application/json"}
        )
    assert plain.json() == items
    assert collected.json() == {"values": items, "errors": []}
    assert msgspec.msgpack.decode(packed.content) == items


async def test_a_list_over_the_spool_is_413() -> None:
    async with gateway(FakeCluster(echo), max_buffer_bytes=1000, max_spool_bytes=1000) as client:
        response = await client.post("/map/echo", json=["x" * 50] * 100)
    assert check_problem(response, 413, "limit-exceeded")["setting"] == "max_spool_bytes"
