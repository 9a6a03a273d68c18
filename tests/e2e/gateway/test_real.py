"""The gateway on real sockets over a real cluster: uvicorn, NATS, pinned workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from jetmap import Cluster
from served import served
from waiting import PATIENCE, wait_until
from wire import Site, chunk, read_chunked, request

pytestmark = pytest.mark.anyio

TASKS = """
import math, os, time
from jetmap import task

@task
def double(n: int) -> int:
    "Twice as much."
    return n * 2

@task
def picky(n: int, *, bad: list[int]) -> float:
    if n in bad:
        raise ValueError(f"no {n}")
    return n / 4

@task
def text(value: str) -> str:
    return value.upper()

@task
def anything(value):
    return value

@task
def sleepy(seconds: float) -> float:
    time.sleep(seconds)  # It computes.
    return seconds

@task
def crash(n: int) -> int:
    if n == 2:
        os._exit(3)
    return n

@task
def begun(seconds: float) -> float:
    at = time.monotonic()
    time.sleep(seconds)
    return at

@task
def nan(n: int) -> float:
    return math.nan if n == 1 else float(n)

@task(timeout=2)
def hasty(seconds: float) -> float:
    time.sleep(seconds)  # It computes.
    return seconds
"""


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    tasks = tmp_path_factory.mktemp("tasks") / "api_real_tasks.py"
    tasks.write_text(TASKS)
    cluster = Cluster(tasks=str(tasks), share=False, cores=2, start_timeout=PATIENCE)
    async with cluster, served(cluster) as port:
        yield Site(cluster, "127.0.0.1", port)


def rows(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# What comes back


async def test_every_answer_of_a_map(site: Site) -> None:
    items = list(range(1000))
    expected = [n * 2 for n in items]
    async with site.client() as client:
        plain = await client.post("/map/double", json=items)
        packed = await client.post(
            "/map/double",
            content=msgspec.msgpack.encode(items),
            headers={"content-type": "application/msgpack", "accept": "application/msgpack"},
        )
        lines = await client.post(
            "/map/double", json=items, headers={"accept": "application/jsonl"}
        )
        ordered = await client.post(
            "/map/double?order=input",
            content="\n".join(map(str, items)),
            headers={"accept": "application/jsonl", "content-type": "application/jsonl"},
        )
        events = await client.post(
            "/map/double", json=items, headers={"accept": "text/event-stream"}
        )
        empty = await client.post("/map/double", json=[])
    assert plain.json() == expected
    assert msgspec.msgpack.decode(packed.content) == expected
    *found, last = rows(lines.text)
    assert sorted((row["index"], row["value"]) for row in found) == list(enumerate(expected))
    assert last == {"done": 1000, "failed": 0}
    assert [row["value"] for row in rows(ordered.text)[:-1]] == expected
    values: list[Any] = [None] * 1000
    for block in events.text.split("\n\n"):
        if block.startswith("event: results"):
            data = json.loads(block.partition("data: ")[2])
            values[data["start"] : data["start"] + len(data["values"])] = data["values"]
            assert data["total"] == 1000
    assert values == expected
    assert empty.json() == []


async def test_the_last_items_of_a_list_begin_early_and_its_first_error_is_answered(
    site: Site,
) -> None:
    items = list(range(101))
    async with site.client() as client:

        async def failing(*bad: int) -> tuple[int, Any]:
            kwargs = {"kwargs": json.dumps({"bad": bad})}
            answer = await client.post("/map/picky", params=kwargs, json=items)
            return answer.status_code, answer.json()["error"]["index"]

        for bad in ((40, 50, 100), (0, 100), (99, 100), (100,)):
            assert await failing(*bad) == (500, bad[0])
        for _ in range(2):  # The first list teaches what an item takes.
            answer = await client.post("/map/begun", json=[0.1] * 40)
    began = answer.json()
    assert len(began) == 40 and began[-1] < began[-2]


@pytest.mark.parametrize(
    ("function", "items", "status", "kind", "index"),
    [
        ("double", [1, 2, "3"], 422, "invalid", 2),
        ("double", [1, 1e3, 2], 422, "invalid", 1),
        ("crash", [1, 2, 3], 500, "lost", 1),
        pytest.param("nan", [0, 1, 2], 500, "unencodable", 1, marks=pytest.mark.slow),
        # Longer than a first call in a worker may take, which is start_timeout more.
        # The first item of a worker has the start timeout more.
        pytest.param("hasty", [0.01, 50, 0.01], 504, "timeout", 1, marks=pytest.mark.slow),
    ],
)
async def test_an_items_error_is_the_lists_problem(
    site: Site, function: str, items: list[Any], status: int, kind: str, index: int
) -> None:
    async with site.client() as client:
        response = await client.post(f"/map/{function}", json=items)
        collected = await client.post(f"/map/{function}?errors=collect", json=items)
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["index"], error["kind"]) == (index, kind)
    assert set(error) == {"index", "kind", "type", "message"}
    document = collected.json()
    assert [value is None for value in document["values"]] == [
        position == index for position in range(len(items))
    ]
    assert document["errors"][0]["kind"] == kind


async def test_refusals(site: Site) -> None:
    async with site.client() as client:
        unknown = await client.post("/map/nowhere", json=[1])
        late = await client.post("/map/sleepy?timeout=0.2", json=[5, 5])
        malformed = await client.post(
            "/map/double", content=b"[1,2", headers={"content-type": "application/json"}
        )
        huge = await client.post(
            "/map/double",
            content=b"[1," + b"9" * 5000 + b"]",
            headers={"content-type": "application/json"},
        )
        after = await client.post("/map/double", json=[4])
    assert [r.status_code for r in (unknown, late, malformed)] == [404, 504, 400]
    assert (huge.status_code, huge.json()["error"]["kind"]) == (422, "invalid")
    assert after.json() == [8]


async def test_what_it_tells_about_itself(site: Site) -> None:
    async with site.client() as client:
        functions = (await client.get("/functions")).json()
        workers = (await client.get("/workers")).json()
        paths = (await client.get("/openapi.json")).json()["paths"]
        metrics = (await client.get("/metrics")).text
        pool = (await client.get("/metrics/pool")).text
        ready = await client.get("/readyz")
    assert {"double", "crash", "sleepy"} <= {function["name"] for function in functions}
    assert workers[0]["cores"] == 2
    assert "/map/sleepy" in paths
    assert "jetmap_chunks_total " in metrics and "jetmap_pool" not in metrics
    assert "\njetmap_pool_cores 2.0\n" in pool
    assert ready.status_code == 200


# Both ways at once


@pytest.mark.slow
async def test_a_client_that_sends_everything_first_gets_everything(site: Site) -> None:
    count = 100_000
    line = b'"' + b"x" * 190 + b'"\n'
    async with site.connection() as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("/map/text", b"", "application/jsonl", "application/jsonl"))
        for _ in range(count // 1000):
            writer.write(chunk(line * 1000))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        body = await asyncio.wait_for(read_chunked(reader), PATIENCE)
    *found, last = body.splitlines()
    assert json.loads(last) == {"done": count, "failed": 0}
    assert len(found) == count
    assert {msgspec.json.decode(row)["index"] for row in found} == set(range(count))


async def test_a_map_takes_no_more_after_an_item_that_failed(site: Site) -> None:
    """And a client that sends its whole body before it reads gets the problem all the same."""
    stats = site.cluster.stats
    for accept in ("application/json", "application/jsonl"):
        before = stats.items_done
        async with site.connection() as (reader, writer):
            writer.write(request("/map/sleepy", b"", accept, "application/jsonl"))
            writer.write(chunk(b'0.0\n"none"\n'))
            for _ in range(100):
                writer.write(chunk(b"0.0010000\n" * 10_000))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            if b" 200 " in head:  # the first item was quick
                await reader.readuntil(b'{"problem":')
            await reader.readuntil(b'"error":{"index":1,"kind":"invalid"')
        assert stats.items_done - before < 10_000
        await wait_until(lambda: stats.maps_open == 0, "the map is over")
