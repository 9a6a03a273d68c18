"""``jetmap map``: JSON lines in, values out, in order."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import msgspec
import typer

from jetmap import arrays
from jetmap.dispatch.sources import Feed
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings

from .clusters import attached, embedded
from .exits import Exit, say
from .lines import Reader, count_lines
from .options import BROKER, WORKER, takes
from .progress import Bar
from .signals import Stop

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster

SHOWN_ERRORS = 100


@takes(*BROKER, *WORKER)
def map(
    settings: Settings,
    function: Annotated[
        str,
        typer.Argument(metavar="FUNCTION", help="Its name, or TASKS:NAME, as in tasks.py:f."),
    ],
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="JSON lines, an item each; -: stdin.")
    ] = "-",
    kwargs: Annotated[
        str | None,
        typer.Option("--kwargs", metavar="JSON", help="The function's keyword-only parameters."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0.001, help="For the whole map."),
    ] = None,
) -> None:
    """JSON lines in; values out, one a line, in order.

    An item that fails is null in the output; its error is told on stderr, and the exit code
    is 1. Without --nats it uses the `jetmap up` of this directory; TASKS:NAME runs on this
    machine's cores, with nothing else to start.

    Examples: jetmap map is_prime numbers.jsonl · seq 9 | jetmap map tasks.py:is_prime
    """
    encoded = _object(kwargs) if kwargs else b""
    tasks, _, name = function.rpartition(":")
    cluster = embedded(settings, tasks) if tasks else attached(settings)
    with _open(file) as source:
        import uvloop

        total = count_lines(source)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            run = _run(cluster, name, source, total, encoded, timeout, settings)
            raise typer.Exit(runner.run(run))


async def _run(
    cluster: Cluster,
    name: str,
    source: BinaryIO,
    total: int | None,
    kwargs: bytes,
    timeout: float | None,
    settings: Settings,
) -> int:
    stop = Stop()
    mapping = asyncio.ensure_future(_map(cluster, name, source, total, kwargs, timeout, settings))
    stopping = asyncio.ensure_future(stop.asked.wait())
    try:
        await asyncio.wait({mapping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if mapping.done():
            return mapping.result()
        mapping.cancel()
        await asyncio.gather(mapping, return_exceptions=True)
        return Exit.INTERRUPTED
    finally:
        stopping.cancel()


async def _map(
    cluster: Cluster,
    name: str,
    source: BinaryIO,
    total: int | None,
    kwargs: bytes,
    timeout: float | None,
    settings: Settings,
) -> int:
    failed = 0
    deadline = None if timeout is None else time.monotonic() + timeout
    async with cluster:
        feed = Feed("json")
        left = None if deadline is None else max(0.001, deadline - time.monotonic())
        opened = await cluster.open(
            name, feed, format="json", kwargs=kwargs, timeout=left, ordered=True
        )
        with Bar(name, total) as bar, Reader(source, feed, settings):
            async with opened as batches:
                async for batch in batches:
                    values = arrays.split(batch.values, "json")
                    # In a thread: whoever reads may be slow, and the map must be kept alive.
                    await asyncio.to_thread(_write, values)
                    for record in batch.errors:
                        failed += 1
                        if failed <= SHOWN_ERRORS:
                            bar.say(f"item {record.index}: {record.type}: {record.message}")
                            if settings.debug and record.traceback:
                                bar.say(record.traceback)
                    bar.done(batch.count, feed.total or total)
    if failed > SHOWN_ERRORS:
        say(f"and {failed - SHOWN_ERRORS} more errors")
    if failed:
        say(f"{failed} item{'s' if failed > 1 else ''} failed")
    return Exit.ITEMS_FAILED if failed else Exit.OK


def _write(values: list[msgspec.Raw]) -> None:
    sys.stdout.buffer.write(b"".join(part for value in values for part in (value, b"\n")))
    sys.stdout.buffer.flush()


def _open(file: str) -> BinaryIO:
    if file == "-":
        if sys.stdin is None:
            raise ConfigurationError(["stdin is closed: name a FILE of JSON lines"])
        if sys.stdin.isatty():
            say("reading items from the terminal, one a line; Ctrl-D ends them")
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as exc:
        raise ConfigurationError([f"{file} cannot be read: {exc.strerror}"]) from exc


def _object(text: str) -> bytes:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError as exc:
        raise ConfigurationError(
            [f"--kwargs is a JSON object such as '{{\"n\": 3}}': {exc}"]
        ) from exc
    return text.encode()
