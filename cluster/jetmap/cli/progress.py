"""A progress bar on stderr if that is a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from jetmap.logs import harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def is_one_terminal() -> bool:
    """Return whether stdout and stderr are one terminal, on which a bar and values would mix."""
    try:
        out, err = os.fstat(1), os.fstat(2)
    except OSError:  # One of them is closed.
        return False
    return os.isatty(1) and os.isatty(2) and out.st_rdev == err.st_rdev


class Bar:
    """The progress of a map or upload, shown on a terminal.

    Args:
        total: Number of items; None while it is unknown.
        beside_values: Values are written to stdout meanwhile. If that is the same terminal, they
            show the progress themselves, and the bar is not shown.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        console: Console | None = None,
        *,
        beside_values: bool = False,
    ) -> None:
        self._progress: Progress | None = None
        is_shown = console.is_terminal if console is not None else sys.stderr.isatty()
        if is_shown and not (beside_values and is_one_terminal()):
            from jetmap.client.progress import rich_progress

            self._progress = rich_progress(console)
            self._task = self._progress.add_task(harmless(name), total=total)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def done(self, count: int, total: int | None) -> None:
        """Add ``count`` items that are done, of ``total``."""
        if self._progress is not None:
            self._progress.update(self._task, advance=count, total=total)

    def say(self, text: str) -> None:
        """Print lines above the bar."""
        text = harmless(text, lines=True)
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr)  # noqa: T201
