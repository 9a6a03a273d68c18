"""``jetmap map``: run a function over JSON lines and print the values in order."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Annotated, BinaryIO

import msgspec
import typer

from jetmap.client.tolerant import TolerantMap
from jetmap.dispatch.item_feed import ItemFeed
from jetmap.dispatch.tolerance import Tolerance
from jetmap.errors import ConfigurationError
from jetmap.functions.kwargs import misfit
from jetmap.settings import Settings
from jetmap.wire import arrays

from .clusters import attached, embedded
from .lists import (
    ARRAY_HINT,
    ErrorPrinter,
    Reader,
    count_lines,
    open_lines,
    write_values,
)
from .map_options import (
    FailedOption,
    KwargsOption,
    LabelOptions,
    LinesArgument,
    ParallelOption,
    TimeoutOption,
    kwargs_of,
    labels_of,
)
from .options import BROKER, WORKER, takes
from .progress import Bar
from .signals import run_cancellable
from .streams import require_stdout

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster


@takes(*BROKER, *WORKER, "debug")
def map(
    settings: Settings,
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION", help="Name of the function, or TASKS:NAME as in tasks.py:f."
        ),
    ],
    file: LinesArgument = "-",
    kwargs: KwargsOption = None,
    timeout: TimeoutOption = None,
    label: LabelOptions = None,
    max_parallel: ParallelOption = None,
    max_failed: FailedOption = None,
    values: Annotated[
        bool,
        typer.Option(
            "--values/--no-values",
            help="Print the values, or run the function for its side effects only.",
        ),
    ] = True,
) -> None:
    """Run a function over JSON lines and print the values in order, one a line.

    For an item that fails the output has null; the error goes to stderr, and the exit code is 1,
    unless --max-failed tolerates it.
    Without --nats the command uses the `jetmap up` of this directory; TASKS:NAME runs on this
    machine's cores, with nothing else to start.

    Examples: jetmap map is_prime numbers.jsonl · seq 9 | jetmap map tasks.py:is_prime
    """
    encoded = kwargs_of(kwargs) if kwargs else b""
    labels = labels_of(label)
    tasks, name = parts_of(function)
    require_stdout("the values")
    cluster = embedded(settings, tasks) if tasks else attached(settings)
    with open_lines(file) as source:
        import uvloop

        total = count_lines(source)
        if max_failed is not None and max_failed.is_share and total is None:
            raise ConfigurationError(
                ["--max-failed is a share of the input, whose length is not known: give a number"]
            )
        work = _map(
            cluster,
            name,
            source,
            total,
            encoded,
            timeout,
            labels,
            max_parallel or None,
            max_failed,
            values,
            settings,
        )
        raise typer.Exit(run_cancellable(work, uvloop.new_event_loop))


def parts_of(function: str) -> tuple[str, str]:
    """Split TASKS:NAME or NAME. Raises ConfigurationError if one half is empty."""
    tasks, colon, name = function.rpartition(":")
    if not colon and (function.endswith(".py") or "/" in function):
        raise ConfigurationError([f"name the function too: jetmap map {function}:FUNCTION FILE"])
    if colon and not name:
        raise ConfigurationError([f"name the function after the colon: {function}FUNCTION"])
    if colon and not tasks:
        raise ConfigurationError(
            [f"name the file before the colon, as in tasks.py:{name}, or leave the colon out"]
        )
    return tasks, name


def check_kwargs(cluster: Cluster, name: str, kwargs: bytes) -> None:
    """Raise ConfigurationError for unknown or missing keyword-only parameters."""
    info = cluster.info(name)
    if info is None:
        return
    given = msgspec.json.decode(kwargs) if kwargs else {}
    if (wrong := misfit(info, given)) is not None:
        example = json.dumps({wrong.parameter: "…"}, ensure_ascii=False)
        hint = "" if given else f" (--kwargs '{example}')"
        raise ConfigurationError([f"{wrong.message}{hint}"])


async def _map(
    cluster: Cluster,
    name: str,
    source: BinaryIO,
    total: int | None,
    kwargs: bytes,
    timeout: float | None,
    labels: dict[str, str],
    max_parallel: int | None,
    max_failed: Tolerance | None,
    wants_values: bool,
    settings: Settings,
) -> int:
    failures = ErrorPrinter(settings.gateway.debug)
    deadline = None if timeout is None else time.monotonic() + timeout
    async with cluster:
        check_kwargs(cluster, name, kwargs)
        feed = ItemFeed("json")
        left = None if deadline is None else max(0.001, deadline - time.monotonic())
        opened = await cluster.open(
            name,
            feed,
            format="json",
            kwargs=kwargs,
            timeout=left,
            ordered=True,
            values=wants_values,
            labels=labels,
            max_parallel=max_parallel,
        )
        if max_failed is not None:
            opened = TolerantMap(opened, max_failed, total)
        with (
            Bar(name, total, beside_values=True) as bar,
            Reader(source, feed, settings.limits) as reader,
        ):
            async with opened as batches:
                async for batch in batches:
                    if wants_values:
                        values = arrays.split(batch.values, "json")
                        # In a thread: the reader of stdout may be slow, and the map must go on.
                        await asyncio.to_thread(write_values, values)
                    for record in batch.errors:
                        failures.add(record, bar)
                        if record.kind == "invalid" and reader.is_one_array:
                            bar.say(f"jetmap: {ARRAY_HINT}")
                    bar.done(batch.count, feed.total or total)
    return failures.finish(tolerated=max_failed is not None)
