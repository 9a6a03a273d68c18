"""All commands, and what ``jetmap --help`` says."""

from __future__ import annotations

from typing import Annotated

import typer

from jetmap import __version__

from .api import api
from .check import check
from .demo import demo
from .exits import MEANING
from .map import map
from .status import status
from .up import up
from .worker import worker

CODES = " · ".join(f"{int(code)} {meaning}" for code, meaning in MEANING.items())

app = typer.Typer(
    name="jetmap",
    help="One Python function over every item of a list, on every core of every host.",
    epilog=f"Exit codes: {CODES}. Every setting is explained in config/jetmap.toml.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jetmap {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show it and exit."),
    ] = False,
) -> None:
    """One Python function over every item of a list, on every core of every host."""


for _command in (demo, up, worker, api, map, status, check):
    app.command(epilog=f"Exit codes: {CODES}.")(_command)
