"""The command line: ``jetmap``, one file a command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit."""
    try:
        _run()
    except KeyboardInterrupt:  # While this is imported; ``exits`` has handled the others.
        sys.exit(130)


def _run() -> None:
    from jetmap.machine import uncollected, usual_signals

    usual_signals()
    with uncollected():
        from . import streams

        streams.prepare()
        import typer

        from .app import build
        from .exits import exits

    try:
        with exits():
            try:
                with uncollected():
                    command = build(sys.argv[1:])
                command()
            finally:
                sys.stdout.flush()
    except typer.Exit as end:
        sys.exit(end.exit_code)
