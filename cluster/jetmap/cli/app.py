"""All commands, and the texts around ``jetmap --help``."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated

import typer

from jetmap.errors import ConfigurationError
from jetmap.version import __version__

from .exits import MEANING

# The commands, each in the module of its name, and the first sentence of its help.
COMMANDS = {
    "demo": "Run real maps over HTTP on this machine, with live progress.",
    "up": "Run everything on this machine: NATS, a worker per core, the gateway.",
    "worker": "Offer this host's cores to a pool.",
    "api": "Run a gateway: HTTP in front of a pool.",
    "map": "Run a function over JSON lines and print the values in order, one a line.",
    "submit": "Submit JSON lines as a job and print its id once all of them are stored.",
    "jobs": "List jobs, the newest first.",
    "job": "Show a job's state, or do what an option says.",
    "maps": "List the open maps and jobs of a pool, whoever runs them, or steer one of them.",
    "function": "Show a function, or pause, resume or limit it in the whole pool.",
    "pool": "Show what is paused or limited in the pool, or pause or resume all of it.",
    "status": "Show hosts, cores, functions, offers and maps in flight.",
    "top": "Show the cores, maps and failures of a pool, live, until Ctrl-C.",
    "ui": "Serve the dashboard of a pool, and print its address.",
    "check": "Validate the configuration and the connection, and start nothing.",
}
CODES = " · ".join(f"{int(code)} {meaning}" for code, meaning in MEANING.items())

SETTINGS = (
    "An option that names a variable is a setting: the option overrides the variable, and the "
    "variable overrides config/jetmap.toml, which explains each. The other options belong to one "
    "call."
)


def build(arguments: list[str]) -> typer.Typer:
    """Build the command that the arguments name; without one, the list of all for the help.

    Each command imports a lot, so that the others are not imported.
    """
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
    named = next((argument for argument in arguments if not argument.startswith("-")), "")
    if named not in COMMANDS and (named.endswith(".py") or ".py:" in named):
        file = named.partition(":")[0]
        raise ConfigurationError(
            [
                f"{named} is not a command: `jetmap up {file}` serves its functions, "
                f"`jetmap map {file}:FUNCTION FILE` runs one over a list"
            ]
        )
    is_completing = "_JETMAP_COMPLETE" in os.environ  # The arguments are in other variables.
    for name in [named] if named in COMMANDS else COMMANDS:
        if named in COMMANDS or is_completing:
            command = getattr(import_module(f"jetmap.cli.{name}"), name)
            app.command(epilog=f"Exit codes: {CODES}. {SETTINGS}")(command)
        else:
            app.command(name, help=COMMANDS[name])(_listed)
    return app


def _listed() -> None:
    """Stand for a command that the arguments do not name."""


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
