"""``jetmap pool``: show, pause or resume the pool."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from jetmap.settings import Settings
from jetmap.wire.controls import PoolControl

from .clusters import attached
from .function import only_one, said
from .options import BROKER, takes
from .signals import run_cancellable

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
    name, control = run_cancellable(_steer(attached(settings), pause if pause or resume else None))
    if as_json:
        functions = {f: msgspec.structs.asdict(c) for f, c in control.functions.items()}
        document = {"pool": name, "paused": control.paused, "functions": functions}
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    typer.echo(f"pool      {name}")
    if control.paused:
        typer.echo("paused    until jetmap pool --resume")
    for function in control.functions:
        typer.echo(f"function  {function}")
        for line in said(function, PoolControl(functions=control.functions)):
            typer.echo(line)


async def _steer(cluster: Cluster, paused: bool | None) -> tuple[str, PoolControl]:
    async with cluster:
        return cluster.settings.broker.pool, await cluster.steer(None, paused=paused)
