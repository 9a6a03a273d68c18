"""``jetmap maps``: list the open maps and jobs, or pause, resume, limit or cancel one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jetmap.errors import ConfigurationError
from jetmap.settings import Settings

from .clusters import attached
from .exits import say
from .map_options import LabelOptions, ParallelOption, labels_of
from .options import BROKER, only_one, takes
from .signals import run_cancellable
from .streams import console_for_tables
from .top import maps_table

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.monitoring.pool_rows import Row
    from jetmap.monitoring.pool_view import Document

DONE = {
    "pause": "is paused; items that are being computed end",
    "resume": "goes on",
    "limit": "has its limit",
    "cancel": "is cancelled",
}


@takes(*BROKER)
def maps(
    settings: Settings,
    id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Id of an open map or job, or how it ends, as listed."),
    ] = None,
    pause: Annotated[
        bool, typer.Option("--pause", help="Send nothing more of it until --resume.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let a paused map go on.")] = False,
    max_parallel: ParallelOption = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End it; its caller gets `map-cancelled`.")
    ] = False,
    function: Annotated[
        str | None,
        typer.Option("--function", metavar="NAME", help="List those of this function only."),
    ] = None,
    label: LabelOptions = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the open maps and jobs of a pool, whoever runs them, or steer one of them.

    Without --nats the command asks the `jetmap up` of this directory.

    Examples: jetmap maps --label customer=7 · jetmap maps 3fQ2 --pause
    """
    actions = {
        "--pause": pause,
        "--resume": resume,
        "--max-parallel": max_parallel is not None,
        "--cancel": cancel,
    }
    only_one(actions)
    action = next((name.strip("-") for name, given in actions.items() if given), "")
    if action and id is None:
        raise ConfigurationError([f"--{action}: name the map, as `jetmap maps` lists it"])
    if action == "max-parallel":
        action = "limit"
    labels = labels_of(label)
    if not action:
        document = run_cancellable(_look(attached(settings)))
        rows = [
            row
            for row in open_rows(document)
            if labels.items() <= row["labels"].items()
            and function in (None, row["function"])
            and row["id"].endswith(id or "")
        ]
        _show(rows, document["now"], as_json)
        return
    assert id is not None
    found = run_cancellable(_steer(attached(settings), id, action, max_parallel or 0))
    done = "has no limit of its own" if max_parallel == 0 else DONE[action]
    say(f"{found['kind']} {found['id']} of {found['function']} {done}")


async def _look(cluster: Cluster) -> Document:
    async with cluster:
        return (await cluster.watch.view()).snapshot()


def open_rows(document: Document) -> list[Row]:
    """Return the rows of the maps and jobs that are open."""
    return [row for row in document["maps"].values() if row["ended"] is None]


async def _steer(cluster: Cluster, id: str, action: str, cores: int) -> Row:
    async with cluster:
        row = chosen(open_rows((await cluster.watch.view()).snapshot()), id)
        if row["kind"] == "map":
            answer = await cluster.watch.ask(action, row["id"], cores)
            if answer.refusal:
                raise ConfigurationError([answer.refusal])
            return row
        job = cluster.job(row["id"])
        if action == "limit":
            await job.limit(cores or None)
        else:
            await {"pause": job.pause, "resume": job.resume, "cancel": job.cancel}[action]()
        return row


def chosen(rows: list[Row], id: str) -> Row:
    """Return the map of this id, or the only one whose id ends with it."""
    exact = [row for row in rows if row["id"] == id]
    found = exact or [row for row in rows if row["id"].endswith(id)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(row["id"] for row in (found or rows)[:10])
    if found:
        raise ConfigurationError([f"{id}: {len(found)} open maps end with it: {there}"])
    raise ConfigurationError([f"{id}: no map of this id is open; open now: {there or 'none'}"])


def _show(rows: list[Row], now: float, as_json: bool) -> None:
    if as_json:
        json.dump(rows, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    length = max((len(row["id"]) for row in rows), default=0)
    console_for_tables().print(maps_table(rows, now, length) if rows else "no map is open")
