"""``jetmap submit``: JSON lines in, a job's id out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from jetmap import bounds
from jetmap.client.submit import abort
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings
from jetmap.wire.split import Elements

from .clusters import attached
from .exits import say
from .lines import ARRAY_HINT, Reader, count_lines
from .options import BROKER, takes
from .progress import Bar
from .signals import run_unless_stopped
from .values import kwargs_of, open_lines, within

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.jobs.record import Record
    from jetmap.jobs.upload import Upload

CALLER = "cli"  # Keys of the command line are its own.


@takes(*BROKER, "debug")
def submit(
    settings: Settings,
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="Its name.")],
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="JSON lines, an item each; -: stdin.")
    ] = "-",
    kwargs: Annotated[
        str | None,
        typer.Option("--kwargs", metavar="JSON", help="The function's keyword-only parameters."),
    ] = None,
    ttl: Annotated[
        float | None,
        typer.Option(
            "--ttl",
            metavar="SECONDS",
            parser=within(bounds.TTL),
            help="To keep it after its end (JETMAP_JOB_TTL).",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", parser=within(bounds.TIMEOUT), help="For the whole job."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="TEXT", help="Of your choice: a retry gives the same job."),
    ] = None,
) -> None:
    """JSON lines in, a job's id out, once all of it is stored; the job goes on by itself.

    Without --nats it uses the `jetmap up` of this directory.

    Examples: jetmap submit is_prime numbers.jsonl · jetmap job $(seq 9 | jetmap submit is_prime)
    """
    encoded = kwargs_of(kwargs) if kwargs else b""
    if ":" in function:
        name = function.rpartition(":")[2]
        raise ConfigurationError(
            [f"a job outlives this command: start `jetmap up TASKS`, then submit {name} to it"]
        )
    cluster = attached(settings)
    with open_lines(file) as source:
        import uvloop

        total = count_lines(source)
        work = _submit(cluster, function, source, total, encoded, ttl, timeout, key, settings)
        record, is_new = run_unless_stopped(work, uvloop.new_event_loop)
    typer.echo(record.id)
    what = f"{record.total:,} items are stored" if is_new else f"{key!r} has this job already"
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
    settings: Settings,
) -> tuple[Record, bool]:
    async with cluster:
        upload = await cluster.jobs.begin(
            name, format="json", kwargs=kwargs, caller=CALLER, key=key, ttl=ttl, timeout=timeout
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
    """Puts items into an upload. ended: done when all are there, or with what went wrong."""

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
