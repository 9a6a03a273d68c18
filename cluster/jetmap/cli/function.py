"""``jetmap function``: show, pause, resume or limit a function."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jetmap import bounds
from jetmap.settings import Settings
from jetmap.wire.controls import FunctionControl, PoolControl

from .clusters import attached
from .map_options import shown_cores, within
from .options import BROKER, only_one, takes
from .signals import run_cancellable

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.dispatch.roster import FunctionStatus


@takes(*BROKER)
def function(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the function.")],
    pause: Annotated[
        bool, typer.Option("--pause", help="Send nothing more of it until --resume.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let a paused function go on.")] = False,
    max_parallel: Annotated[
        int | None,
        typer.Option(
            "--max-parallel",
            metavar="N",
            parser=within(bounds.PARALLEL_OR_NONE),
            help="Cores that it may use at most, over the whole pool; 0: no limit of its own, so "
            "that of its code holds.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a function, or pause, resume or limit it in the whole pool.

    A pause and a limit stay until somebody ends them, whatever restarts. Items that are being
    computed end; maps of a paused function wait until their timeout.

    Example: jetmap function is_prime --pause
    """
    only_one({"--pause": pause, "--resume": resume, "--max-parallel": max_parallel is not None})
    wishes: dict[str, Any] = {}
    if pause or resume:
        wishes["paused"] = pause
    if max_parallel is not None:
        wishes["max_parallel"] = max_parallel or None
    control, statuses = run_cancellable(_steer(attached(settings), name, wishes))
    cores = sum(status.cores for status in statuses)
    declared = next((status.info.max_parallel for status in statuses), None)
    if as_json:
        steered = steering_of(control.of(name), declared)
        found = {"name": name, "cores": cores, **steered, "pool_paused": control.paused}
        json.dump(found, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    typer.echo(f"function  {name}")
    typer.echo(f"cores     {cores} have it" if cores else "cores     no worker has it now")
    for line in said(name, control, declared):
        typer.echo(line)


def steering_of(control: FunctionControl, declared: int | None) -> dict[str, Any]:
    """Return what holds for a function, as plain values. declared: the limit in its code."""
    return {
        "paused": control.paused,
        "max_parallel": control.max_parallel or declared,
        "max_parallel_in_code": declared,
    }


def said(name: str, control: PoolControl, declared: int | None = None) -> list[str]:
    """Say what holds for a function. declared: the limit in its code."""
    lines = []
    if limit := control.of(name).max_parallel:
        code = f"; its code says {declared:,}" if declared is not None else ""
        lines.append(f"limit     {shown_cores(limit)}{code}")
    elif declared is not None:
        lines.append(f"limit     {shown_cores(declared)}, as its code says")
    if control.of(name).paused:
        lines.append(f"paused    until jetmap function {name} --resume")
    if control.paused:
        lines.append("paused    the whole pool, until jetmap pool --resume")
    return lines


async def _steer(
    cluster: Cluster, name: str, wishes: dict[str, Any]
) -> tuple[PoolControl, list[FunctionStatus]]:
    async with cluster:
        control = await cluster.steer(name, **wishes)
        return control, [status for status in cluster.functions if status.info.name == name]
