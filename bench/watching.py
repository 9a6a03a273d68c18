"""The cost of watching: CPU seconds an item with open dashboards, and with traces at 1 %."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import mean, stdev

import msgspec
import psutil

from . import tasks
from .measure import Samples, interleaved
from .run import Run
from .servers import Server, gateway_server
from .table import Row, Target
from .wire import connect, exchange, request

PAIRS = 30
DASHBOARDS = 10
MAPS, ITEMS, SECONDS = 40, 25, 0.0015  # Maps of a measurement, items of a map, seconds of an item.
# Quantiles 0.975 of Student's t for few and for 30 pairs; conservative in between.
T_30, T_FEW = 2.045, 3.2
SAMPLED = f"00-{'0a' * 16}-{'0b' * 8}-01"
TRACED = {
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.01",
}


async def watching(run: Run) -> list[Row]:
    """Ten open dashboards, and traces of one map in a hundred, beside neither."""
    plain = await run.gateway()
    maps = run.scaled(MAPS)
    pairs = max(3, run.scaled(PAIRS))

    async def alone() -> float:
        return await _seconds_an_item(run, plain, maps)

    async def watched() -> float:
        async with _dashboards(plain, DASHBOARDS):
            return await _seconds_an_item(run, plain, maps)

    await alone()
    found = await interleaved(pairs, {"alone": alone, "watched": watched})
    rows = [_row(f"{DASHBOARDS} open dashboards", found, "watched", pairs)]
    # Elsewhere: there is one `jetmap up` in a directory.
    with tempfile.TemporaryDirectory() as place:
        async with gateway_server(Path(place), TRACED) as tracing:

            async def traced() -> float:
                return await _seconds_an_item(run, tracing, maps)

            # Sampled as its caller wants: the workers load the SDK once.
            await _seconds_an_item(run, tracing, maps, "traceparent: " + SAMPLED)
            await traced()
            found = await interleaved(pairs, {"alone": alone, "traced": traced})
    rows.append(_row("traces of 1 % of the maps", found, "traced", pairs))
    return rows


def _row(what: str, samples: Samples, name: str, pairs: int) -> Row:
    extra = [100 * (b / a - 1) for a, b in zip(samples["alone"], samples[name], strict=True)]
    half = (T_30 if pairs >= PAIRS else T_FEW) * stdev(extra) / len(extra) ** 0.5
    micro = [f"{1e6 * mean(samples[key]):,.0f} µs" for key in ("alone", name)]
    return Row(
        "watching",
        f"CPU an item: {what}, {mean(extra):+.2f} % ± {half:.2f} (95 %, {pairs} pairs)",
        aside="",
        baseline=micro[0],
        jetmap=micro[1],
        figure=mean(extra) + half,
        target=Target("at most", 1, " %"),
        samples=dict(samples),
    )


async def _seconds_an_item(run: Run, server: Server, maps: int, header: str = "") -> float:
    """Compute maps, and return the CPU that all processes of this `jetmap up` took for an item."""
    items = run.work.equal(ITEMS, SECONDS)
    message = request(server.port, f"/map/{tasks.even.__name__}", msgspec.json.encode(items))
    if header:
        message = message.replace(b"\r\n", f"\r\n{header}\r\n".encode(), 1)

    def compute() -> None:
        with connect(server.port) as connection:
            for _ in range(maps):
                exchange(connection, message)

    before = _cpu_seconds(server)
    await asyncio.to_thread(compute)
    return (_cpu_seconds(server) - before) / (maps * ITEMS)


def _cpu_seconds(server: Server) -> float:
    """CPU of the gateway, its parent, and all that this has started, by the scheduler's clock."""
    parent = psutil.Process(server.pid).parent()
    assert parent is not None
    total = 0
    for process in (parent, *parent.children(recursive=True)):
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            try:
                total += int((thread / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                continue  # It has ended.
    return total / 1e9


@asynccontextmanager
async def _dashboards(server: Server, count: int) -> AsyncIterator[None]:
    """Keep the event streams of this many dashboards open, and read them."""
    writers: list[asyncio.StreamWriter] = []
    readers: list[asyncio.Task[None]] = []

    async def read(reader: asyncio.StreamReader) -> None:
        while await reader.read(1 << 16):
            pass

    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writers.append(writer)
            writer.write(b"GET /ui/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"event:")
            readers.append(asyncio.ensure_future(read(reader)))
        yield
    finally:
        for writer in writers:
            writer.close()
        await asyncio.gather(*readers, return_exceptions=True)
