"""What commands that run lists share: parameters and items in, values and errors out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import typer

from jetmap.bounds import Bound, shown
from jetmap.errors import ConfigurationError
from jetmap.wire.messages import ErrorRecord

from .exits import Exit, say
from .progress import Bar

SHOWN_ERRORS = 100


class Failures:
    """Tells of failing items on stderr, but not of endlessly many."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._count = 0

    def add(self, record: ErrorRecord, bar: Bar) -> None:
        self._count += 1
        if self._count <= SHOWN_ERRORS:
            bar.say(f"item {record.index}: {record.type}: {record.message}")
            if self._debug and record.traceback:
                bar.say(record.traceback)

    def told(self) -> Exit:
        """Says how many there were; the exit code."""
        if self._count > SHOWN_ERRORS:
            say(f"and {self._count - SHOWN_ERRORS} more errors")
        if self._count:
            say(f"{self._count} item{'s' if self._count > 1 else ''} failed")
        return Exit.ITEMS_FAILED if self._count else Exit.OK


def within(bound: Bound) -> Callable[[str], float]:
    """What reads an option's number; click's own ranges let NaN through."""

    def parse(text: str) -> float:
        found = bound.parse(text.strip())
        if found is None:
            raise typer.BadParameter(f"must be {bound}, not {shown(text)}")
        return found

    return parse


def write_values(values: Sequence[bytes | msgspec.Raw]) -> None:
    """JSON values on stdout, one a line."""
    sys.stdout.buffer.write(b"".join(part for value in values for part in (value, b"\n")))
    sys.stdout.buffer.flush()


def open_lines(file: str) -> BinaryIO:
    """A file of items, or (-) stdin. Raises ConfigurationError."""
    if file == "-":
        if sys.stdin is None:
            raise ConfigurationError(["stdin is closed: name a FILE of JSON lines"])
        if sys.stdin.isatty():
            say("reading items from the terminal, one a line; Ctrl-D ends them")
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as exc:
        raise ConfigurationError([f"{file} cannot be read: {exc.strerror}"]) from exc


def kwargs_of(text: str) -> bytes:
    """Keyword-only parameters as they travel. Raises ConfigurationError."""
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError as exc:
        raise ConfigurationError(
            [f"--kwargs is a JSON object such as '{{\"n\": 3}}': {exc}"]
        ) from exc
    return text.encode()
