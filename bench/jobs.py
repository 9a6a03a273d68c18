"""Rows of jobs beside streamed maps, over HTTP on the same gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from statistics import median
from time import perf_counter
from typing import Any

import httpx
import msgspec

from . import work
from .measure import interleaved, median_ratio
from .readers import idle_readers
from .run import Run
from .servers import Server
from .table import Row, Target, seconds
from .wire import Connections

LINES_A_PART = 8192
MANY, EACH = 1000, 10
FEW, MANY_ITEMS = 20_000, 2_000_000
MEGABYTE = 1_000_000
AT_ONCE = 64
JSON_LINES = {"content-type": "application/jsonl", "accept": "application/jsonl"}


async def jobs(run: Run) -> list[Row]:
    """A million items as a job and as a streamed map; 202; a thousand small jobs."""
    server = await run.gateway()
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", timeout=300, limits=limits
    ) as client:
        return [
            await _memory(run, client, server),
            await _long(run, client),
            await _submitted(run, client),
            *await _many(run, server.port),
            await idle_readers(run),
        ]


async def _long(run: Run, client: httpx.AsyncClient) -> Row:
    items = run.work.equal(run.scaled(1_000_000), work.TINY)
    body = _lines(items)

    async def streamed() -> float:
        began = perf_counter()
        lines = await _read(client, "POST", "/map/tiny", content=_parts(body), headers=JSON_LINES)
        return _checked(lines, len(items), began)

    async def job() -> float:
        began = perf_counter()
        answer = await client.post("/jobs/tiny", content=_parts(body), headers=JSON_LINES)
        answer.raise_for_status()
        place = answer.headers["location"]
        results = f"{place}/results?wait=60"
        lines = await _read(client, "GET", results, headers={"accept": "application/jsonl"})
        took = _checked(lines, len(items), began)
        (await client.delete(place)).raise_for_status()
        return took

    rounds = min(run.runs, 3)
    samples = await interleaved(rounds, {"streamed": streamed, "job": job})
    return Row(
        "jobs",
        f"{len(items):,} items of 15 µs as a job, to the last result",
        aside="",
        baseline=f"{seconds(median(samples['streamed']))} (streamed map)",
        jetmap=seconds(median(samples["job"])),
        figure=median_ratio(samples["job"], samples["streamed"]),
        target=Target("at most", 1.5),
        samples=samples,
    )


async def _memory(run: Run, client: httpx.AsyncClient, server: Server) -> Row:
    """Measure the gateway's peak memory with one long job, and with a short one."""
    peaks = []
    for count in (FEW, run.scaled(MANY_ITEMS)):
        server.forget_peak()
        body = _lines([1] * count)
        answer = await client.post("/jobs/nothing", content=_parts(body), headers=JSON_LINES)
        answer.raise_for_status()
        place = answer.headers["location"]
        began = perf_counter()
        results = f"{place}/results?wait=60"
        lines = await _read(client, "GET", results, headers={"accept": "application/jsonl"})
        _checked(lines, count, began)
        (await client.delete(place)).raise_for_status()
        peaks.append(float(server.peak_memory()))
    return Row(
        "jobs",
        f"gateway, a job of JSON lines: growth over {run.scaled(MANY_ITEMS):,} items",
        baseline=f"{peaks[0] / MEGABYTE:.0f} MB ({FEW:,} items)",
        jetmap=f"{peaks[1] / MEGABYTE:.0f} MB",
        figure=(peaks[1] - peaks[0]) / MEGABYTE,
        target=Target("at most", 100, " MB"),
        samples={"peak": peaks},
    )


async def _submitted(run: Run, client: httpx.AsyncClient) -> Row:
    """202 for 1,000 items, one request after the other."""
    items = [1] * 1000
    times = []
    for _ in range(run.scaled(100)):
        began = perf_counter()
        answer = await client.post("/jobs/nothing", json=items)
        times.append(perf_counter() - began)
        answer.raise_for_status()
        (await client.delete(answer.headers["location"])).raise_for_status()
    return Row(
        "jobs",
        "202 for 1,000 items, p50, ms",
        aside="",
        baseline="",
        jetmap=seconds(median(times)),
        figure=median(times) * 1000,
        target=Target("at most", 15),
        samples={"submit": times},
    )


async def _many(run: Run, port: int) -> list[Row]:
    """A thousand jobs of ten items, and one of as many items."""
    count = run.scaled(MANY)
    small = run.work.equal(EACH, work.STEADY)
    large = run.work.equal(EACH * count, work.STEADY)
    gets: list[float] = []
    server = await Connections.open(port, AT_ONCE // 2)

    async def submit(items: list[int]) -> str:
        answer = await server.ask("POST", "/jobs/even", msgspec.json.encode(items))
        return answer.headers["location"]

    async def until_over(places: list[str], *, timed: bool) -> None:
        left = list(places)
        while left:
            for place in left[:20]:
                began = perf_counter()
                answer = await server.ask("GET", place)
                document: dict[str, Any] = msgspec.json.decode(answer.body)
                if timed:
                    gets.append(perf_counter() - began)
                if document["finished"] is not None:
                    assert document["state"] == "succeeded", document
                    left.remove(place)
            await asyncio.sleep(0.02)

    async def many() -> float:
        began = perf_counter()
        places = await asyncio.gather(*(submit(small) for _ in range(count)))
        await until_over(places, timed=True)
        took = perf_counter() - began
        await asyncio.gather(*(server.ask("DELETE", place) for place in places))
        return took

    async def one_large() -> float:
        began = perf_counter()
        place = await submit(large)
        await until_over([place], timed=False)
        took = perf_counter() - began
        await server.ask("DELETE", place)
        return took

    try:
        samples = await interleaved(min(run.runs, 3), {"many": many, "one": one_large})
    finally:
        server.close()
    gets.sort()
    p99 = gets[int(len(gets) * 0.99)]
    return [
        Row(
            "jobs",
            f"{count:,} jobs of {EACH} items of 1.5 ms, open at once: throughput",
            aside="",
            baseline=f"{seconds(median(samples['one']))} (one job)",
            jetmap=seconds(median(samples["many"])),
            figure=median_ratio(samples["one"], samples["many"]),
            target=Target("at least", 0.5),
            samples=samples,
        ),
        Row(
            "jobs",
            "GET /jobs/{id} meanwhile, p99, ms",
            aside="",
            baseline="",
            jetmap=seconds(p99),
            figure=p99 * 1000,
            target=Target("at most", 30),
            samples={"get": gets},
        ),
    ]


async def _read(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> int:
    """Read and count the lines of an answer."""
    lines = 0
    async with client.stream(method, path, **options) as answer:
        answer.raise_for_status()
        async for chunk in answer.aiter_bytes():
            lines += chunk.count(b"\n")
    return lines


def _checked(lines: int, count: int, began: float) -> float:
    took = perf_counter() - began
    if lines != count + 1:
        raise AssertionError(f"{lines} lines for {count} items")
    return took


def _lines(items: list[int]) -> list[bytes]:
    """The items as JSON lines, in parts."""
    return [
        "".join(f"{item}\n" for item in items[at : at + LINES_A_PART]).encode()
        for at in range(0, len(items), LINES_A_PART)
    ]


async def _parts(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
