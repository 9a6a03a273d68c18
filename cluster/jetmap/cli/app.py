"""All commands, and the texts around ``jetmap --help``."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from jetmap.errors import ConfigurationError
from jetmap.version import __version__

from .exits import MEANING

COMMANDS = (
    *("demo", "up", "worker", "api", "map"),
    *("submit", "jobs", "job", "status", "check"),
)
CODES = " · ".join(f"{int(code)} {meaning}" for code, meaning in MEANING.items())

SETTINGS = (
    "An option that names a variable is a setting: the option overrides the variable, and the "
    "variable overrides config/jetmap.toml, which explains each. The other options belong to one "
    "call."
)


def build(arguments: list[str]) -> typer.Typer:
    """Build the commands; only the one that the arguments name, since each imports a lot."""
    app = typer.Typer(
        name="jetmap",
        help="One Python function over every item of a list, on every core of every host.",
        epilog=f"Exit codes: {CODES}. {SETTINGS}",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    named = arguments[0] if arguments else ""
    if named not in COMMANDS and (named.endswith(".py") or ".py:" in named):
        file = named.partition(":")[0]
        raise ConfigurationError(
            [
                f"{named} is not a command: `jetmap up {file}` serves its functions, "
                f"`jetmap map {file}:FUNCTION FILE` runs one over a list"
            ]
        )
    for name in [named] if named in COMMANDS else COMMANDS:
        command = getattr(import_module(f"jetmap.cli.{name}"), name)
        app.command(epilog=f"Exit codes: {CODES}. {SETTINGS}")(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jetmap {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """One Python function over every item of a list, on every core of every host."""
