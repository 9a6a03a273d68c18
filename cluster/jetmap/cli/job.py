"""``jetmap job``: show, follow, cancel or delete a job, or print its results."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from jetmap import bounds
from jetmap.client.job_follower import JobFollower
from jetmap.client.job_status import JobStatus
from jetmap.codecs import codec_for
from jetmap.codecs.walk import decode_plainly
from jetmap.dispatch.outcomes import Batch
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings
from jetmap.wire import arrays
from jetmap.wire.messages import ErrorRecord, Format

from .clusters import attached
from .exits import Exit, say
from .jobs import duration, status_document
from .lists import ErrorPrinter, write_values
from .map_options import (
    LabelOptions,
    ParallelOption,
    labels_of,
    shown_labels,
    tolerance,
    within,
)
from .options import BROKER, only_one, takes
from .progress import Bar
from .signals import run_cancellable
from .streams import echo

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.jobs.changes import JobChanges


FAILURES_AT_ONCE = 500  # Errors that are read and printed together.
ANY = "any"  # No limit, as --max-failed says it.


def _tolerance(text: str) -> str:
    """Read the option --max-failed of a job that is there."""
    return ANY if text == ANY else tolerance(text).text


@takes(*BROKER, "debug")
def job(
    settings: Settings,
    id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the job, as printed by `jetmap submit`.")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait until the job ends, with a progress bar.")
    ] = False,
    results: Annotated[
        bool,
        typer.Option("--results", help="Print its values in order, one a line, until it ends."),
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End the job; its outcomes stay.")
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Print the errors of its failed items, one a line.")
    ] = False,
    retry: Annotated[
        bool,
        typer.Option("--retry", help="Run its failed items again; all others keep their outcomes."),
    ] = False,
    pause: Annotated[
        bool, typer.Option("--pause", help="Send nothing more of it until --resume.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let a paused job go on.")] = False,
    max_parallel: ParallelOption = None,
    max_failed: Annotated[
        str | None,
        typer.Option(
            "--max-failed",
            metavar="N|N%|any",
            parser=_tolerance,
            help="Items that may fail, or their share; any: a failed item ends nothing, but makes "
            "it a failed job.",
        ),
    ] = None,
    label: LabelOptions = None,
    unlabel: Annotated[
        list[str] | None,
        typer.Option(
            "--unlabel", metavar="NAME", help="Remove this label; may be given repeatedly."
        ),
    ] = None,
    run: Annotated[
        int | None,
        typer.Option(
            "--run",
            metavar="N",
            parser=within(bounds.RUN),
            help="With --results or --failed: those of this run; the latest if not given.",
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="End the job and remove all of it.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the state as JSON; with --results, each outcome with its index."
        ),
    ] = False,
) -> None:
    """Show a job's state, or do what an option says.

    Following and reading do not affect the job: Ctrl-C ends only this command. With --results a
    failed item is null in the output, and its error goes to stderr; --failed prints only the
    errors. --retry starts the job's next run, which --follow can watch. With --follow and --results
    the exit code is 1 if the job failed or ended without all outcomes, and 0 if it tolerated its
    failed items. --max-parallel, --max-failed, --label and --unlabel change a job that is not over;
    all else of it stays.

    Examples: jetmap job 3fQ2 --follow · jetmap job 3fQ2 --results > primes.jsonl
    """
    changes = _changes(max_parallel, max_failed, label, unlabel)
    chosen = {
        "--follow": follow,
        "--results": results,
        "--failed": failed,
        "--cancel": cancel,
        "--retry": retry,
        "--pause": pause,
        "--resume": resume,
        _changing(changes, label): bool(changes),
        "--delete": delete,
    }
    only_one(chosen)
    action = next((name for name, is_given in chosen.items() if is_given), "")
    if run is not None and not (results or failed):
        raise ConfigurationError(["--run: give --results or --failed with it"])
    cluster = attached(settings)
    if results:
        work = _results(cluster, id, as_json, settings, run)
    elif failed:
        work = _failed(cluster, id, settings.gateway.debug, run)
    else:
        work = _state(cluster, id, action, as_json, changes)
    import uvloop

    raise typer.Exit(run_cancellable(work, uvloop.new_event_loop))


def _changes(
    max_parallel: int | None,
    max_failed: str | None,
    label: list[str] | None,
    unlabel: list[str] | None,
) -> JobChanges:
    changes: JobChanges = {}
    if max_parallel is not None:
        changes["max_parallel"] = max_parallel or None
    if max_failed is not None:
        changes["max_failed"] = None if max_failed == ANY else max_failed
    if label or unlabel:
        given = labels_of(label)
        if both := given.keys() & set(unlabel or ()):
            raise ConfigurationError([f"--label and --unlabel both name {min(both)}: give one"])
        changes["labels"] = {**given, **dict.fromkeys(unlabel or ())}
    return changes


def _changing(changes: JobChanges, label: list[str] | None) -> str:
    """Return the name of an option that changes the job."""
    if "max_parallel" in changes:
        return "--max-parallel"
    if "max_failed" in changes:
        return "--max-failed"
    return "--label" if label else "--unlabel"


async def _state(cluster: Cluster, id: str, action: str, as_json: bool, changes: JobChanges) -> int:
    async with cluster:
        job = cluster.job(id)
        if action == "--delete":
            await job.delete()
            say(f"job {id} is removed")
            return Exit.OK
        if action == "--cancel":
            status = await job.cancel()
        elif action == "--retry":
            status = await job.retry()
        elif action == "--pause":
            status = await job.pause()
        elif action == "--resume":
            status = await job.resume()
        elif changes:
            try:
                status = await job.update(**changes)
            except ValueError as error:
                raise ConfigurationError([str(error)]) from error
        elif action == "--follow":
            status = await _followed(cluster, id)
        else:
            status = await job.status()
    if as_json:
        json.dump(status_document(status), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _show(status)
    return Exit.ITEMS_FAILED if action == "--follow" and status.state != "succeeded" else Exit.OK


async def _followed(cluster: Cluster, id: str) -> JobStatus:
    bar: Bar | None = None
    shown = 0
    reported: str | None = None
    try:
        async with aclosing(JobFollower(id, lambda: cluster.jobs).records()) as records:
            async for record in records:
                if bar is None:
                    bar = Bar(record.function, record.total)
                    bar.__enter__()
                bar.done(record.done - shown, record.total)
                shown = record.done
                lack = record.reason if record.public_state == "waiting" else None
                if lack != reported:
                    bar.say(
                        f"waiting for {record.waiting_for}: {lack}" if lack else "running again"
                    )
                    reported = lack
    finally:
        if bar is not None:
            bar.__exit__()
    return JobStatus.of(record)


async def _failed(cluster: Cluster, id: str, debug: bool, run: int | None) -> int:
    """Print a JSON object for each failed item."""
    async with cluster:
        follower = JobFollower(id, lambda: cluster.jobs, run=run)
        at: int | None = 0
        while at is not None:
            found, at = await follower.failures(at, FAILURES_AT_ONCE)
            lines: list[bytes | msgspec.Raw] = [
                msgspec.json.encode(
                    {"index": e.index, "kind": e.kind, "type": e.type, "message": e.message}
                    | ({"traceback": e.traceback} if debug and e.traceback else {})
                )
                for e in found
            ]
            await asyncio.to_thread(write_values, lines)
    return Exit.OK


async def _results(
    cluster: Cluster, id: str, as_json: bool, settings: Settings, run: int | None
) -> int:
    failures = ErrorPrinter(settings.gateway.debug)
    unprintable = 0  # Values that the job has, and JSON has not.
    async with cluster:
        follower = JobFollower(id, lambda: cluster.jobs, run=run)
        status = await cluster.job(id).status()
        with Bar(status.function, status.total) as bar:
            async with aclosing(follower.ordered(0)) as batches:
                async for batch in batches:
                    lines, errors = printable(batch, follower.format, as_json)
                    # In a thread: the reader of stdout may be slow.
                    await asyncio.to_thread(write_values, lines)
                    unprintable += len(errors) - len(batch.errors)
                    for record in errors:
                        failures.add(record, bar)
                    bar.done(batch.count, status.total)
    return failures.finish(tolerated=follower.succeeded and not unprintable)


def printable(
    batch: Batch, format: Format, with_index: bool
) -> tuple[list[bytes | msgspec.Raw], list[ErrorRecord]]:
    """Return a batch's values as JSON, null for failed items, and the errors.

    Args:
        with_index: Return objects with ``index`` and ``value`` or ``error`` instead.
    """
    errors = {record.index: record for record in batch.errors}
    if format == "json" and not with_index:
        return list(arrays.split(batch.values, "json")), batch.errors
    lines: list[bytes | msgspec.Raw] = []
    for index, value in enumerate(_as_json(batch, format, errors), batch.start):
        record = errors.get(index)
        if not with_index:
            lines.append(value)
        elif record is None:
            lines.append(b'{"index":%d,"value":%b}' % (index, value))
        else:
            facts = {"kind": record.kind, "type": record.type, "message": record.message}
            lines.append(
                b'{"index":%d,"error":%b}' % (index, msgspec.json.encode({"index": index} | facts))
            )
    return lines, [errors[index] for index in sorted(errors)]


def _as_json(batch: Batch, format: Format, errors: dict[int, ErrorRecord]) -> Iterator[bytes]:
    """Yield each value; one that JSON cannot represent, such as NaN, becomes an error."""
    anything = codec_for(Any)
    for index, raw in enumerate(arrays.split(batch.values, format), batch.start):
        if format == "json":
            yield bytes(raw)
            continue
        if format == "pickle" and index not in errors:
            message = "a pickled value: read the job in Python, with Cluster(trust_pickle=True)"
            errors[index] = ErrorRecord(index, "unencodable", "PermissionError", message)
            yield b"null"
            continue
        try:
            yield anything.encode(decode_plainly(bytes(raw)), "json")
        except Exception as error:
            name = type(error).__name__
            errors[index] = ErrorRecord(index, "unencodable", name, f"no JSON: {error}")
            yield b"null"


def _show(status: JobStatus) -> None:
    def line(name: str, text: str) -> None:
        echo(f"{name:<10}{text}")

    line("job", status.id)
    line("function", status.function)
    line("state", status.state + (f": {status.reason}" if status.reason else ""))
    total = "an unknown number" if status.total is None else f"{status.total:,}"
    if status.labels:
        line("labels", shown_labels(status.labels))
    if status.max_parallel:
        line("limit", f"{status.max_parallel} cores")
    if status.max_failed is not None:
        line("may fail", f"{status.max_failed} items")
    if status.paused:
        line("paused", "until jetmap job ID --resume")
    if status.run > 1:
        line("run", f"{status.run}")
    line("items", f"{status.done:,} of {total} done, {status.failed:,} failed")
    for name, moment in (
        ("created", status.created),
        ("started", status.started),
        ("finished", status.finished),
    ):
        if moment is not None:
            line(name, moment.astimezone().isoformat(" ", "seconds"))
    if status.rate is not None:
        line("rate", f"{status.rate:,.1f} items a second")
    if not status.is_over and status.seconds_left is not None:
        line("left", duration(status.seconds_left))
