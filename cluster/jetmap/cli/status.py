"""``jetmap status``: who is in the pool, and what they do."""

from __future__ import annotations

import json
import socket
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from jetmap.errors import NoWorkers
from jetmap.logs import harmless
from jetmap.settings import Settings
from jetmap.wire import subjects
from jetmap.wire.controls import PoolControl
from jetmap.wire.presence import Presence
from jetmap.wire.versions import differences

from .clusters import attached
from .map_options import LabelOptions, labels_of, shown_cores, shown_labels
from .options import BROKER, takes
from .signals import run_cancellable
from .streams import as_cell, console_for_tables

if TYPE_CHECKING:
    from rich.console import Console

    from jetmap.client.cluster import Cluster

FREE_POOL = PoolControl()
# Columns of a map that its dispatcher announces.
SHOWN = ("kind", "state", "done", "total", "failed", "rate", "left", "waits", "owner", "labels")


@takes(*BROKER)
def status(
    settings: Settings,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    here: Annotated[
        bool,
        typer.Option(
            "--here", help="Show this host only; exit with 4 if none of its cores is ready."
        ),
    ] = False,
    label: LabelOptions = None,
) -> None:
    """Show hosts, cores, functions, offers and maps in flight.

    Without --nats the command asks the `jetmap up` of this directory.

    Example: jetmap status --nats nats://broker:4222
    """
    labels = labels_of(label)
    agents, maps, control = run_cancellable(_ask(attached(settings)))
    if here:
        agents = [agent for agent in agents if agent.host == socket.gethostname()]
    found = summary(settings.broker.pool, agents, maps, control)
    if labels:  # Those that nobody announces have none.
        rows = found["maps"]
        found["maps"] = [row for row in rows if labels.items() <= (row["labels"] or {}).items()]
    if as_json:
        json.dump(found, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show(found, console_for_tables())
    if here and not any(agent.ready for agent in agents):
        raise NoWorkers("no core of this host is ready")


async def _ask(cluster: Cluster) -> tuple[list[Presence], list[dict[str, Any]], PoolControl]:
    async with cluster:
        view = await cluster.watch.view()
        return cluster.workers, list(view.snapshot()["maps"].values()), cluster.control


def summary(
    pool: str,
    agents: list[Presence],
    maps: Sequence[Mapping[str, Any]] = (),
    control: PoolControl = FREE_POOL,
) -> dict[str, Any]:
    """Return everything to show, as plain values.

    Args:
        maps: The open ones, as dispatchers say.
        control: What is paused or limited.
    """
    return {
        "pool": pool,
        "paused": control.paused,
        "cores": sum(agent.cores for agent in agents),
        "ready": sum(agent.ready for agent in agents),
        "busy": sum(agent.busy for agent in agents),
        "waiting_chunks": sum(_waiting(agents).values()),
        "hosts": [_host(agent) for agent in agents],
        "offers": _offers(agents),
        "functions": _functions(agents, control),
        "maps": _maps(agents, maps),
        "version_differences": differences(agents),
    }


def show(found: dict[str, Any], console: Console) -> None:
    """Print the summary for people."""
    console.print(
        f"pool {found['pool']}: {found['ready']} of {found['cores']} cores ready, "
        f"{found['busy']} busy, {found['waiting_chunks']} chunks waiting",
        highlight=False,
    )
    if found["paused"]:
        console.print("the pool is paused: `jetmap pool --resume` lets it go on", style="yellow")
    for row in found["functions"]:
        if row["paused"] or row["max_parallel"] is not None:
            limit = ""
            if row["max_parallel"] is not None:
                limit = f"at most {shown_cores(row['max_parallel'])}"
            what = ", ".join(filter(None, ["paused" if row["paused"] else "", limit]))
            text = harmless(f"function {row['name']}: {what}")
            console.print(text, style="yellow", markup=False)
    if not found["hosts"]:
        console.print("no workers: start `jetmap worker TASKS` with the same --nats and --pool")
    _table(console, "hosts", found["hosts"], "host pid cores ready busy offer version state python")
    if found["version_differences"]:
        console.print(
            "\nwarning: hosts have different versions; functions that travel as pickles need the "
            "same Python and cloudpickle"
        )
        for line in found["version_differences"]:
            console.print(f"  {harmless(line)}", markup=False, highlight=False)
    _table(console, "functions", found["functions"], "name doc cores hosts offers")
    columns = "map function kind state done total failed rate left cores waits labels"
    _table(console, "maps in flight", found["maps"], columns)
    for host in found["hosts"]:
        if host["failure"]:
            what = "" if host["ready"] else " workers cannot start:\n"
            text = f"\n{host['host']}:{what or ' '}{host['failure']}"
            console.print(harmless(text, lines=True), markup=False, highlight=False)


def _host(agent: Presence) -> dict[str, Any]:
    return {
        "host": agent.host,
        "agent": agent.agent,
        "pid": agent.pid,
        "cores": agent.cores,
        "ready": agent.ready,
        "busy": agent.busy,
        "offer": agent.offer,
        "version": agent.version,
        "state": _state(agent),
        "failure": agent.failure,
        "python": agent.python,
        "packages": agent.packages,
        "workers": msgspec.to_builtins(agent.workers),
    }


def _state(agent: Presence) -> str:
    if agent.draining:
        return "draining"
    if agent.ready:
        return "ready"
    return "cannot start" if agent.failure else "starting"


def _waiting(agents: list[Presence]) -> dict[str, int]:
    """Return the number of waiting chunks by offer; all agents of an offer see the same queue."""
    waiting: dict[str, int] = defaultdict(int)
    for agent in agents:
        waiting[agent.offer] = max(waiting[agent.offer], agent.pending)
    return waiting


def _offers(agents: list[Presence]) -> list[dict[str, Any]]:
    offers: dict[str, list[Presence]] = defaultdict(list)
    for agent in agents:
        if agent.offer:
            offers[agent.offer].append(agent)
    newest = sorted(offers.values(), key=lambda serving: -serving[0].rank)
    return [
        {
            "offer": serving[0].offer,
            "version": serving[0].version,
            "rank": serving[0].rank,
            "cores": sum(agent.cores for agent in serving if not agent.draining),
            "functions": sorted({f.name for agent in serving for f in agent.functions}),
        }
        for serving in newest
    ]


def _functions(agents: list[Presence], control: PoolControl) -> list[dict[str, Any]]:
    having: dict[str, list[Presence]] = defaultdict(list)
    docs: dict[str, str] = {}
    limits: dict[str, int | None] = {}
    for agent in agents:
        for function in agent.functions:
            having[function.name].append(agent)
            docs[function.name] = function.doc.partition("\n")[0]
            limits[function.name] = function.max_parallel
    for name in control.functions:  # Also one that no worker has now.
        having[name] += []
    return [
        {
            "name": name,
            "doc": docs.get(name, ""),
            "paused": control.of(name).paused,
            "max_parallel": control.of(name).max_parallel or limits.get(name),
            "cores": sum(agent.cores for agent in serving if not agent.draining),
            "hosts": sorted({agent.host for agent in serving}),
            "offers": sorted({agent.offer for agent in serving}),
        }
        for name, serving in sorted(having.items())
    ]


def _maps(agents: list[Presence], maps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List the open maps; those that nobody announces are known from the cores that run them."""
    cores: dict[tuple[str, str], int] = defaultdict(int)
    for agent in agents:
        for worker in agent.workers:
            if worker.map:
                id = subjects.job_of(worker.map) or worker.map
                cores[id, worker.function or ""] += 1
    rows = [
        {
            "map": row["id"],
            "function": row["function"],
            "cores": cores.pop((row["id"], row["function"]), 0),
            **{name: row[name] for name in SHOWN},
        }
        for row in maps
        if row["ended"] is None
    ]
    unknown = dict.fromkeys(SHOWN)
    for (map, function), count in sorted(cores.items()):
        rows.append({"map": map, "function": function, "cores": count, **unknown})
    return rows


def _table(console: Console, title: str, rows: list[dict[str, Any]], columns: str) -> None:
    if not rows:
        return
    from rich.table import Table

    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
    for column in columns.split():
        numeric = isinstance(rows[0][column], int)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=column != "doc")
    for row in rows:
        table.add_row(*(as_cell(_shown(row[column])) for column in columns.split()))
    console.print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return shown_labels(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
