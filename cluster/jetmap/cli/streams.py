"""The standard streams of a command: some may be closed, or on a full disk."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING, Any

from jetmap.errors import ConfigurationError, JetmapError
from jetmap.logs import harmless
from jetmap.standard_streams import hold_closed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_WIDE = 1000  # Columns of a pipe or a file.

_closed: set[int] = set()


class OutputFailed(JetmapError):  # noqa: N818
    """Stdout cannot be written."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"stdout cannot be written: {cause.strerror}")


class ReaderGone(BrokenPipeError):  # noqa: N818
    """The reader of stdout has gone, as after ``| head -1``."""


class _Stdout(io.FileIO):
    """Tell a failed write from that of any other file: raise OutputFailed or ReaderGone."""

    def write(self, data: Any, /) -> int:
        try:
            # Where another program has made it non-blocking, it takes nothing while it is full.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except BrokenPipeError as error:
            raise ReaderGone(*error.args) from None
        except OSError as error:
            raise OutputFailed(error) from None


class _Stderr(io.FileIO):
    """Drop what cannot be written: a message that nobody can read must not end a command."""

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        try:
            return super().write(data) or size
        except OSError:
            return size


def prepare() -> None:
    """Open the null device for closed streams; make failures of stdout recognizable, and those of
    stderr harmless.
    """
    _closed.update(hold_closed())
    if os.environ.get("COLUMNS", "").strip("0") == "":
        os.environ.pop("COLUMNS", None)  # Rich believes a width of 0, and prints nothing at all.
    before, errors = sys.stdout, sys.stderr
    handler = before.errors if before is not None else "strict"
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(1, "w", closefd=False)),
        encoding=before.encoding if before is not None else "utf-8",
        # A name that the encoding of an old locale does not have is still worth printing.
        errors="backslashreplace" if handler == "strict" else handler,
        line_buffering=os.isatty(1),
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Stderr(2, "w", closefd=False)),
        encoding=errors.encoding if errors is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def require_stdout(what: str) -> None:
    """Raise ConfigurationError if stdout was closed."""
    if 1 in _closed:
        raise ConfigurationError([f"stdout is closed: {what} would be lost"])


def drop_output() -> None:
    """Discard the output still buffered for stdout, so that it does not fail again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def echo(text: str) -> None:
    """Print lines on stdout, whoever chose parts of them."""
    import typer

    typer.echo(harmless(text, lines=True))


def as_cell(text: str, style: str = "") -> Text:
    """Make a cell of a table, whoever chose its text: neither markup nor control characters act."""
    from rich.text import Text

    return Text(harmless(text), style)


def console_for_tables() -> Console:
    """Return a console for stdout; in a pipe or a file, nothing of a table is cut."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=_WIDE)
