"""Rows of peak memory: two million streamed items against twenty thousand of the same run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from time import perf_counter

import msgspec

from .callers import caller
from .run import Run
from .servers import Server
from .table import Row, Target
from .wire import BadAnswerError, connect, receive_chunks, send_lines

FEW = 20_000
MANY = 2_000_000
MEGABYTE = 1_000_000
LINES_A_PART = 4096


class Line(msgspec.Struct):
    """A line of the gateway's answer."""

    index: int | None = None
    value: int | None = None
    done: int | None = None
    failed: int | None = None
    problem: msgspec.Raw | None = None


async def memory(run: Run) -> list[Row]:
    """The caller of ``Cluster.stream``, and the gateway with JSON lines in and out."""
    few, many = FEW, run.scaled(MANY)
    rows = [await _stream_row(few, many)]
    gateway = await run.gateway()
    ways = {
        "gateway, JSON lines in and out": False,
        "gateway, JSON lines, client reads after it has sent all": True,
    }
    before = [await asyncio.to_thread(_through, gateway, few, late) for late in ways.values()]
    for title, late in ways.items():
        peak, rate = await asyncio.to_thread(_through, gateway, many, late)
        rows.append(_row(title, many, before[-1][0], peak, rate))
    return rows


async def _stream_row(few: int, many: int) -> Row:
    async with caller("stream", few, many) as streamer:
        before = await streamer.answer()
        after = await streamer.answer()
    rate = many / after["seconds"]
    return _row("caller of Cluster.stream", many, before["peak"], after["peak"], rate)


def _row(title: str, many: int, before: int, after: int, rate: float) -> Row:
    return Row(
        "memory",
        f"{title}: growth over {many:,} items",
        baseline=f"{before / MEGABYTE:.0f} MB ({FEW:,} items)",
        jetmap=f"{after / MEGABYTE:.0f} MB ({rate:,.0f} items/s)",
        figure=(after - before) / MEGABYTE,
        target=Target("at most", 100, " MB"),
        samples={"peak": [before, after], "rate": [rate]},
    )


def _through(gateway: Server, count: int, late: bool) -> tuple[int, float]:
    """Send ``count`` items as JSON lines; return the gateway's peak memory in bytes and items/s.

    late: read nothing until all is sent, as ordinary clients do.
    """
    began = perf_counter()
    with connect(gateway.port) as connection:
        send = threading.Thread(
            target=send_lines, args=(connection, "/map/nothing", _lines(count)), daemon=True
        )
        send.start()
        if late:
            send.join()
        _check(count, receive_chunks(connection))
        send.join()
    return gateway.peak_memory(), count / (perf_counter() - began)


def _lines(count: int) -> Iterator[bytes]:
    for start in range(0, count, LINES_A_PART):
        part = range(start, min(start + LINES_A_PART, count))
        yield "".join(f"{n}\n" for n in part).encode()


def _check(count: int, parts: Iterator[bytes]) -> None:
    """Check that each item is answered once, with its own value, before the last line."""
    decoder = msgspec.json.Decoder(Line)
    seen, rest, last = bytearray(count), b"", Line()
    for part in parts:
        whole, newline, rest = (rest + part).rpartition(b"\n")
        if not newline:
            continue
        for last in decoder.decode_lines(whole):
            if last.index is None:
                continue
            if last.value != last.index or seen[last.index]:
                raise BadAnswerError(f"a wrong or second line for an item: {last}")
            seen[last.index] = 1
    if rest or last.done != count or last.failed or seen.count(1) != count:
        raise BadAnswerError(f"{seen.count(1)} of {count} items answered; the last line was {last}")
