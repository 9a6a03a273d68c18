"""``jetmap submit``: store JSON lines as a job and print its id."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from jetmap import bounds
from jetmap.client.submit import abort
from jetmap.dispatch.tolerance import Tolerance
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings
from jetmap.wire.split import Elements

from .clusters import attached
from .exits import say
from .lists import ARRAY_HINT, Reader, count_lines, open_lines
from .map_options import (
    FailedOption,
    KwargsOption,
    LabelOptions,
    LinesArgument,
    ParallelOption,
    TimeoutOption,
    kwargs_of,
    labels_of,
    within,
)
from .options import BROKER, takes
from .progress import Bar
from .signals import run_cancellable

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.jobs.record import Record
    from jetmap.jobs.upload import Upload

CALLER = "cli"  # Name of the command line among callers; keys belong to their caller.


@takes(*BROKER, "debug")
def submit(
    settings: Settings,
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="Name of the function.")],
    file: LinesArgument = "-",
    kwargs: KwargsOption = None,
    ttl: Annotated[
        float | None,
        typer.Option(
            "--ttl",
            metavar="SECONDS",
            parser=within(bounds.TTL),
            help="Time to keep the job after its end (JETMAP_JOB_TTL).",
        ),
    ] = None,
    timeout: TimeoutOption = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="TEXT",
            help="A key of your choice: submitting again with it returns the same job.",
        ),
    ] = None,
    label: LabelOptions = None,
    max_parallel: ParallelOption = None,
    max_failed: FailedOption = None,
    values: Annotated[
        bool,
        typer.Option(
            "--values/--no-values",
            help="Store the values, or run the function for its side effects only.",
        ),
    ] = True,
) -> None:
    """Submit JSON lines as a job and print its id once all of them are stored.

    The job then runs by itself. Without --nats the command uses the `jetmap up` of this directory.

    Examples: jetmap submit is_prime numbers.jsonl · jetmap job $(seq 9 | jetmap submit is_prime)
    """
    encoded = kwargs_of(kwargs) if kwargs else b""
    labels = labels_of(label)
    try:
        bounds.check_key(key)
    except ValueError as exc:
        raise ConfigurationError([f"--key: {exc}"]) from exc
    if ":" in function:
        name = function.rpartition(":")[2]
        raise ConfigurationError(
            [f"a job outlives this command: start `jetmap up TASKS`, then submit {name} to it"]
        )
    cluster = attached(settings)
    with open_lines(file) as source:
        import uvloop

        total = count_lines(source)
        work = _submit(
            cluster,
            function,
            source,
            total,
            encoded,
            ttl,
            timeout,
            key,
            labels,
            max_parallel or None,
            max_failed,
            values,
            settings,
        )
        record, is_new = run_cancellable(work, uvloop.new_event_loop)
    what = (
        f"{record.total:,} items are stored" if is_new else f"the key {key!r} has this job already"
    )
    try:
        typer.echo(record.id)
    finally:  # Where stdout is on a full disk, at least stderr names the job.
        say(f"{what}; to follow the job: jetmap job {record.id} --follow")


async def _submit(
    cluster: Cluster,
    name: str,
    source: BinaryIO,
    total: int | None,
    kwargs: bytes,
    ttl: float | None,
    timeout: float | None,
    key: str | None,
    labels: dict[str, str],
    max_parallel: int | None,
    max_failed: Tolerance | None,
    values: bool,
    settings: Settings,
) -> tuple[Record, bool]:
    async with cluster:
        upload = await cluster.jobs.begin(
            name,
            format="json",
            kwargs=kwargs,
            caller=CALLER,
            key=key,
            ttl=ttl,
            timeout=timeout,
            max_failed=None if max_failed is None else max_failed.text,
            values=values,
            labels=labels,
            max_parallel=max_parallel,
        )
        try:
            most = settings.limits.fitting(cluster.max_item)
            with Bar("stored", total) as bar:
                sink = _Sink(upload, bar, total)
                with Reader(source, sink, most) as reader:
                    await sink.ended
                    if reader.is_one_array:
                        bar.say(f"jetmap: {ARRAY_HINT}")
            return await upload.commit(), upload.earlier is None
        except BaseException:
            await abort(upload)
            raise


class _Sink:
    """Put items into an upload. ``ended`` is done when all are stored, or has the error."""

    def __init__(self, upload: Upload, bar: Bar, total: int | None) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._upload = upload
        self._bar = bar
        self._total = total

    async def put(self, elements: Elements) -> None:
        if self.ended.done():
            return
        try:
            await self._upload.put(elements)
        except Exception as error:
            self.fail(error)
        else:
            self._bar.done(len(elements), self._total)

    def fail(self, error: BaseException) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def close(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
