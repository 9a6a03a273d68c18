"""``jetmap pool``: show, pause or resume the pool."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jetmap.settings import Settings
from jetmap.wire.controls import PoolControl

from .clusters import attached
from .function import said, steering_of
from .options import BROKER, only_one, takes
from .signals import run_cancellable
from .streams import echo

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster


@takes(*BROKER)
def pool(
    settings: Settings,
    pause: Annotated[
        bool, typer.Option("--pause", help="Send nothing more of any function until --resume.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let a paused pool go on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what is paused or limited in the pool, or pause or resume all of it.

    A pause stays until somebody ends it, whatever restarts. Items that are being computed end;
    maps wait until their timeout, and jobs go on when the pool is resumed.

    Example: jetmap pool --pause
    """
    only_one({"--pause": pause, "--resume": resume})
    work = _steer(attached(settings), pause if pause or resume else None)
    name, control, declared = run_cancellable(work)
    if as_json:
        functions = {f: steering_of(control.of(f), limit) for f, limit in declared.items()}
        document = {"pool": name, "paused": control.paused, "functions": functions}
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    typer.echo(f"pool      {name}")
    if control.paused:
        typer.echo("paused    until jetmap pool --resume")
    for function, limit in declared.items():
        echo(f"function  {function}")
        for line in said(function, PoolControl(functions=control.functions), limit):
            echo(line)


async def _steer(
    cluster: Cluster, paused: bool | None
) -> tuple[str, PoolControl, dict[str, int | None]]:
    """Steer the pool; return its name, its controls, and the limits in the code of each function
    that is paused or limited.
    """
    async with cluster:
        control = await cluster.steer(None, paused=paused)
        rows = (await cluster.watch.view()).snapshot()["functions"]
        declared = {name: row["declared"] for name, row in rows.items()}
        chosen = {
            name: declared.get(name)
            for name in sorted({*control.functions, *declared})
            if name in control.functions or declared[name] is not None
        }
        return cluster.settings.broker.pool, control, chosen
