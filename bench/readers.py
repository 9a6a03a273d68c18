"""Rows of many readers of one job that has nothing new for them."""

from __future__ import annotations

import asyncio
import resource

import msgspec
import psutil

from .run import Run
from .table import Row, Target
from .wire import Connections

READERS = 10_000
AT_ONCE = 100
SETTLE_SECONDS = 5.0
KEPT_FILES = 500  # Descriptors for all else.


async def idle_readers(run: Run) -> Row:
    """CPU that open event streams of one idle job cost the gateway, with their comments."""
    server = await run.gateway()
    connections = await Connections.open(server.port, 1)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # The gateway has the same limit.
    count = min(run.scaled(READERS), files - KEPT_FILES)
    writers: list[asyncio.StreamWriter] = []

    async def read(place: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.append(writer)
        writer.write(f"GET {place}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"event: start")

    # Its only item computes for longer than this is measured.
    answer = await connections.ask("POST", "/jobs/even", msgspec.json.encode([10**12]))
    place = answer.headers["location"]
    process = psutil.Process(server.pid)
    try:
        for start in range(0, count, AT_ONCE):
            await asyncio.gather(*(read(place) for _ in range(min(AT_ONCE, count - start))))
        await asyncio.sleep(SETTLE_SECONDS)
        seconds = run.lasting(30)
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(seconds)
        share = 100 * (sum(process.cpu_times()[:2]) - before) / seconds
    finally:
        for writer in writers:
            writer.close()
        await connections.ask("DELETE", place)
        connections.close()
    return Row(
        "jobs",
        f"{count:,} idle readers of one job's events: gateway's share of a core",
        aside="",
        baseline="",
        jetmap=f"{share:.1f} %",
        figure=share,
        target=Target("at most", 5, " %"),
        samples={"share": [share]},
    )
