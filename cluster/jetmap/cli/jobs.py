"""``jetmap jobs``: list jobs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec
import typer

from jetmap import bounds
from jetmap.client.job_status import JobStatus
from jetmap.errors import ConfigurationError
from jetmap.jobs.record import JobState
from jetmap.settings import Settings

from .clusters import attached
from .map_options import LabelOptions, labels_of, shown_labels, within
from .options import BROKER, takes
from .signals import run_cancellable
from .streams import as_cell, console_for_tables

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster

STATES = [state for state in get_args(JobState) if state not in ("uploading", "expired", "deleted")]


@takes(*BROKER)
def jobs(
    settings: Settings,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help=f"List jobs in this state only: {', '.join(STATES)}."
        ),
    ] = None,
    function: Annotated[
        str | None,
        typer.Option("--function", metavar="NAME", help="List jobs of this function only."),
    ] = None,
    label: LabelOptions = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            metavar="N",
            parser=within(bounds.LISTED_JOBS),
            help="Number of jobs to list.",
        ),
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List jobs, the newest first.

    Without --nats the command asks the `jetmap up` of this directory.

    Example: jetmap jobs --state running --state queued
    """
    wanted = [part.strip() for text in state or [] for part in text.split(",")]
    if unknown := [part for part in wanted if part not in STATES]:
        raise ConfigurationError(
            [f"--state {unknown[0]}: unknown state, use one of {', '.join(STATES)}"]
        )
    found, more = run_cancellable(
        _list(attached(settings), wanted, function, limit, labels_of(label))
    )
    if as_json:
        json.dump([status_document(status) for status in found], sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _show(found, more)


def status_document(status: JobStatus) -> dict[str, Any]:
    """Return plain values for JSON; times as RFC 3339 text."""
    found: dict[str, Any] = msgspec.to_builtins(status)
    return found


def duration(seconds: float | None) -> str:
    """Format seconds for people: "8 s", "2:05", "3:00:00"."""
    if seconds is None:
        return ""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


async def _list(
    cluster: Cluster,
    states: list[Any],
    function: str | None,
    limit: int,
    labels: dict[str, str],
) -> tuple[list[JobStatus], bool]:
    found: list[JobStatus] = []
    after: str | None = None
    async with cluster:
        while True:
            page, after = await cluster.jobs.list(
                states=states,
                function=function,
                limit=min(1000, limit - len(found)),
                after=after,
                labels=labels,
            )
            found += [JobStatus.of(record) for record in page]
            if after is None or len(found) >= limit:
                return found, after is not None


def _show(found: list[JobStatus], more: bool) -> None:
    from rich.table import Table

    console = console_for_tables()
    if not found:
        console.print("no jobs")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("job", "function", "state", "done", "of", "failed", "age", "left", "labels"):
        numeric = name not in ("job", "function", "state", "labels")
        least = len(found[0].id) if name == "job" else None  # To be typed: never cut.
        justify: Literal["right", "left"] = "right" if numeric else "left"
        table.add_column(name, justify=justify, no_wrap=True, min_width=least)
    now = datetime.now(UTC)
    for status in found:
        age = None if status.created is None else max(0.0, (now - status.created).total_seconds())
        table.add_row(
            status.id,
            as_cell(status.function),
            as_cell(f"waiting for {status.waiting_for}" if status.waiting_for else status.state),
            f"{status.done:,}",
            "" if status.total is None else f"{status.total:,}",
            f"{status.failed:,}",
            duration(age),
            "" if status.is_over else duration(status.seconds_left),
            as_cell(shown_labels(status.labels)),
        )
    console.print(table)
    if more:
        console.print("and older ones: --limit shows more", style="dim")
