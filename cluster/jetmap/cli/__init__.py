"""The command line: ``jetmap``, one file a command."""

from __future__ import annotations


def main() -> None:
    """Runs the command that ``sys.argv`` names, and exits."""
    from . import tether

    tether.hold()
    import sys

    from .app import build

    build(sys.argv[1:])()
