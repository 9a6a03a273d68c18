"""Rows over HTTP: the gateway beside a FastAPI app with a process pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import msgspec

from . import tasks, work
from .measure import Measure, Samples, interleaved, median_ratio
from .pool import Function
from .run import Run
from .servers import Server
from .table import Row, Target, seconds
from .wire import BadAnswerError, connect, exchange, hammer, request

LOAD_SECONDS = 2.0


class Call:
    """One request and the answer that it must get, for any of the servers.

    prefix: of the path; ``/map`` of the pool's app awaits all items at once, ``/each`` awaits
    them one after the other.
    """

    def __init__(self, f: Function, items: Sequence[int]) -> None:
        self._name = f.__name__
        self._body = msgspec.json.encode(items)
        self._expected = msgspec.json.encode([f(item) for item in items])

    def rate(
        self, server: Server, connections: int, duration: float, prefix: str = "/map"
    ) -> Measure:
        """Requests a second, each connection sending its next request after an answer."""
        message = request(server.port, f"{prefix}/{self._name}", self._body)

        def measure() -> float:
            return hammer(server.port, message, self._expected, connections, duration).rate

        return _threaded(measure)

    def latency(self, server: Server, calls: int, prefix: str = "/map") -> Measure:
        """The median time of one request, in seconds, on one connection."""
        message = request(server.port, f"{prefix}/{self._name}", self._body)

        def measure() -> float:
            times = []
            with connect(server.port) as connection:
                if calls > 1:
                    exchange(connection, message)
                for _ in range(calls):
                    began = perf_counter()
                    body = exchange(connection, message)
                    times.append(perf_counter() - began)
                    if body.replace(b" ", b"") != self._expected:
                        raise BadAnswerError(f"{body[:200]!r} instead of {self._expected[:200]!r}")
            return median(times)

        return _threaded(measure)


def _threaded(measure: Callable[[], float]) -> Measure:
    async def measured() -> float:
        return await asyncio.to_thread(measure)

    return measured


async def http_one(run: Run) -> list[Row]:
    """One empty item, one connection, p50."""
    call, calls = Call(tasks.nothing, [7]), run.scaled(600)
    contenders = {
        "pool": call.latency(await run.pool_server(), calls),
        "jetmap": call.latency(await run.gateway(), calls),
    }
    samples = await _warm_samples(run, contenders)
    pool, jetmap = samples["pool"], samples["jetmap"]
    return [
        Row(
            "http-one",
            "HTTP, one empty item, one connection, p50",
            baseline=seconds(median(pool)),
            jetmap=seconds(median(jetmap)),
            figure=median_ratio(jetmap, pool),
            target=Target("at most", 1.35),
            samples=samples,
        )
    ]


async def http_16(run: Run) -> list[Row]:
    """One empty item, 16 connections, requests a second."""
    call, duration = Call(tasks.nothing, [7]), run.lasting(LOAD_SECONDS)
    contenders = {
        "pool": call.rate(await run.pool_server(), 16, duration),
        "jetmap": call.rate(await run.gateway(), 16, duration),
    }
    samples = await _warm_samples(run, contenders)
    return [_rate_row("http-16", "HTTP, one empty item, 16 connections", samples)]


async def http_steady(run: Run) -> list[Row]:
    """16 items of 1.5 ms, one connection, requests a second."""
    call = Call(tasks.even, run.work.equal(16, work.STEADY))
    duration, pool = run.lasting(LOAD_SECONDS), await run.pool_server()
    contenders = {
        "pool": call.rate(pool, 1, duration, "/each"),
        "gathered": call.rate(pool, 1, duration),
        "jetmap": call.rate(await run.gateway(), 1, duration),
    }
    samples = await _warm_samples(run, contenders)
    return [_rate_row("http-steady", "HTTP, 16 items of 1.5 ms, one connection", samples)]


async def http_tiny(run: Run) -> list[Row]:
    """20,000 items of 15 µs in one request."""
    items = run.work.equal(run.scaled(20_000), work.TINY)
    call, pool, gateway = Call(tasks.tiny, items), await run.pool_server(), await run.gateway()
    await call.latency(gateway, 1)()
    contenders = {
        "pool": call.latency(pool, 1, "/each"),
        "gathered": call.latency(pool, 1),
        "jetmap": call.latency(gateway, 3),
    }
    samples = await interleaved(run.runs, contenders)
    return [
        Row(
            "http-tiny",
            f"HTTP, {len(items):,} items of 15 µs",
            aside=f"{seconds(median(samples['gathered']))} (gathered)",
            baseline=seconds(median(samples["pool"])),
            jetmap=seconds(median(samples["jetmap"])),
            figure=median_ratio(samples["pool"], samples["jetmap"]),
            target=Target("at least", 20),
            samples=samples,
        )
    ]


async def _warm_samples(run: Run, contenders: dict[str, Measure]) -> Samples:
    for measure in contenders.values():
        await measure()
    return await interleaved(run.runs, contenders)


def _rate_row(name: str, title: str, samples: Samples) -> Row:
    gathered = samples.get("gathered")
    return Row(
        name,
        title,
        aside=f"{median(gathered):.0f} /s (gathered)" if gathered else "",
        baseline=f"{median(samples['pool']):.0f} /s",
        jetmap=f"{median(samples['jetmap']):.0f} /s",
        figure=median_ratio(samples["jetmap"], samples["pool"]),
        target=Target("at least", 1.4),
        samples=samples,
    )
