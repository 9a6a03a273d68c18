"""Rows of large bodies over HTTP, and of bytes between hosts.

An ASGI app that only splits and joins a body is the baseline. Time is noisy on a busy machine, so
each figure has the CPU seconds of all processes of its server beside it.
"""

from __future__ import annotations

import asyncio
import os
from statistics import median
from time import perf_counter
from unittest import mock

import msgspec
import psutil

from jetmap import Cluster

from . import tasks
from .measure import Measure, interleaved, median_ratio
from .run import Run
from .servers import Server, cpu_seconds
from .table import Row, Target, seconds
from .wire import JSON, MSGPACK, BadAnswerError, connect, exchange_large

# Bytes of an item, and their number.
SIZES = {"1 kB": (1_000, 10_000), "100 kB": (100_000, 2_000), "8 MB": (8_000_000, 64)}
# Name of the format, its media type, and the time that is wanted, as a share of the echo's.
FORMATS = {"MessagePack": (MSGPACK, 1.3), "JSON": (JSON, 1.7)}
MILLION = 1_000_000
FAR_BYTES = SIZES["8 MB"]


class Exchange:
    """A request whose answer is known, measured against any of the servers."""

    def __init__(self, body: bytes, media: str, expected: bytes) -> None:
        self._body = body
        self._media = media
        self._expected = expected
        self._answer = bytearray(len(expected))

    def time(self, server: Server, path: str, spent: list[float]) -> Measure:
        """The seconds of one request; the CPU seconds of the server are added to ``spent``."""

        def measure() -> float:
            with connect(server.port) as connection:
                before, began = server.cpu_seconds(), perf_counter()
                size = exchange_large(connection, path, self._body, self._media, self._answer)
                took = perf_counter() - began
                spent.append(server.cpu_seconds() - before)
            if size != len(self._expected) or self._answer != self._expected:
                raise BadAnswerError(f"{path}: {size} other bytes came back")
            return took

        async def measured() -> float:
            return await asyncio.to_thread(measure)

        return measured


async def http_payloads(run: Run) -> list[Row]:
    """Items of 1 kB, 100 kB and 8 MB over HTTP, beside an app that only splits and joins."""
    gateway, echo = await run.gateway(), await run.echo_server()
    return [
        await _echoed(run, gateway, echo, size, format)
        for size in reversed(SIZES)
        for format in FORMATS
    ]


async def _echoed(run: Run, gateway: Server, echo: Server, name: str, format: str) -> Row:
    size, count = SIZES[name]
    media, wanted = FORMATS[format]
    body = await asyncio.to_thread(_encoded, size, run.scaled(count), media)
    exchange = Exchange(body, media, body)
    spent: dict[str, list[float]] = {"echo": [], "jetmap": []}
    contenders = {
        "echo": exchange.time(echo, "/map/send_back", spent["echo"]),
        "jetmap": exchange.time(gateway, "/map/send_back", spent["jetmap"]),
    }
    samples = await _warm_samples(run, contenders, spent)
    return Row(
        f"http-{name.replace(' ', '')}-{format.lower()}",
        f"HTTP, {run.scaled(count):,} of {name}, {format}",
        aside=f"{median_ratio(spent['jetmap'], spent['echo']):.2f} times the CPU",
        baseline=_shown(samples["echo"], spent["echo"]),
        jetmap=_shown(samples["jetmap"], spent["jetmap"]),
        figure=median_ratio(samples["jetmap"], samples["echo"]),
        target=Target("at most", wanted),
        samples=samples | {f"cpu of {who}": figures for who, figures in spent.items()},
    )


def _encoded(size: int, count: int, media: str) -> bytes:
    """Encode a list of random bytes; in JSON they are base64 text."""
    items = [os.urandom(size) for _ in range(count)]
    return msgspec.msgpack.encode(items) if media == MSGPACK else msgspec.json.encode(items)


async def http_million(run: Run) -> list[Row]:
    """1,000,000 items of x + 1 in one request, beside an app that cuts the list by hand."""
    gateway, pool = await run.gateway(), await run.pool_server()
    items = range(run.scaled(MILLION))
    body = msgspec.json.encode(list(items))
    exchange = Exchange(body, JSON, msgspec.json.encode([n + 1 for n in items]))
    spent: dict[str, list[float]] = {"pool": [], "jetmap": []}
    contenders = {
        "pool": exchange.time(pool, "/chunked/increment", spent["pool"]),
        "jetmap": exchange.time(gateway, "/map/increment", spent["jetmap"]),
    }
    samples = await _warm_samples(run, contenders, spent)
    return [
        Row(
            "http-million",
            f"HTTP, {len(items):,} of x + 1, JSON",
            aside=f"{median_ratio(samples['jetmap'], samples['pool']):.2f} times the pool's time",
            baseline=_shown(samples["pool"], spent["pool"]) + ", cut by hand",
            jetmap=_shown(samples["jetmap"], spent["jetmap"]),
            figure=median(samples["jetmap"]),
            target=Target("at most", 0.3, " s"),
            samples=samples,
        )
    ]


async def between_hosts(run: Run) -> list[Row]:
    """64 items of 8 MB there and back through the broker, as between hosts."""
    size, count = FAR_BYTES[0], run.scaled(FAR_BYTES[1])
    items = await asyncio.to_thread(lambda: [os.urandom(size) for _ in range(count)])
    spent: list[float] = []
    with mock.patch.dict(os.environ, {"JETMAP_ARENA_BYTES": "0"}):
        async with Cluster(tasks=["bench.tasks"], share=False) as cluster:

            async def measure() -> float:
                before, began = _cpu_seconds(cluster), perf_counter()
                values = await cluster.map(tasks.send_back, items)
                took = perf_counter() - began
                spent.append(_cpu_seconds(cluster) - before)
                if values != items:
                    raise AssertionError("other bytes came back")
                return 2 * size * count / took / 1e6

            samples = await _warm_samples(run, {"jetmap": measure}, {"jetmap": spent})
    rate = median(samples["jetmap"])
    return [
        Row(
            "between-hosts",
            f"{count} of 8 MB there and back through the broker",
            aside="items and values counted",
            baseline="",
            jetmap=_shown([2 * size * count / 1e6 / rate], spent),
            figure=rate,
            target=Target("at least", 450, " MB/s"),
            samples=samples,
        )
    ]


def _cpu_seconds(cluster: Cluster) -> float:
    """Sum the CPU seconds of this process, and of the keepers with all that they started."""
    keepers = [psutil.Process(presence.pid) for presence in cluster.workers]
    parts = [process for each in keepers for process in (each, *each.children(recursive=True))]
    return sum(cpu_seconds(pid) for pid in (os.getpid(), *(process.pid for process in parts)))


async def _warm_samples(
    run: Run, contenders: dict[str, Measure], spent: dict[str, list[float]]
) -> dict[str, list[float]]:
    for measure in contenders.values():
        await measure()
    for figures in spent.values():
        figures.clear()
    return await interleaved(run.runs, contenders)


def _shown(samples: list[float], spent: list[float]) -> str:
    return f"{seconds(median(samples))} ({median(spent):.2f} s of CPU)"
