"""The command line: ``jetmap``, one file a command."""

from __future__ import annotations


def main() -> None:
    """Runs the command that ``sys.argv`` names, and exits."""
    from jetmap.machine import hold_tether

    from . import streams

    streams.prepare()
    hold_tether()
    import sys

    import typer

    from .app import build
    from .exits import exits

    with streams.writing():
        try:
            with exits():
                app = build(sys.argv[1:])
        except typer.Exit as fault:  # outside of a command nobody takes it for an exit code
            sys.exit(fault.exit_code)
        app()
