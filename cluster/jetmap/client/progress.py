"""The progress of a running map: reported to a function of the caller, or drawn as a bar."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jetmap.dispatch.outcomes import Batch

from .stream import RunningMap, WrappedMap

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

REFRESH_SECONDS = 0.1  # Seconds between two looks of a notebook's bar, at least.
LINE_SECONDS = 10.0  # Seconds between two lines where nothing can be drawn, at least.


class Progress(NamedTuple):
    """A map's progress.

    Attributes:
        done: Items that have their outcome.
        failed: Items among them that failed.
        total: Number of items; None until it is known.
    """

    done: int
    failed: int
    total: int | None


OnProgress = Callable[[Progress], object]


def check_progress(progress: object) -> None:
    """Raise TypeError unless the option is a bool or a function that can be called."""
    if progress is None or isinstance(progress, bool):
        return
    if inspect.iscoroutinefunction(progress):
        raise TypeError("progress is an async function, and is not awaited: write def")
    if not callable(progress):
        raise TypeError(
            f"progress is True, or a function that takes a Progress, not {progress!r:.60}"
        )


class MeteredMap(WrappedMap):
    """Pass a map's batches on, and report its progress at the start and after each of them.

    Args:
        progress: Called with each ``Progress``; True draws a bar.
    """

    def __init__(self, run: RunningMap, name: str, progress: OnProgress | bool) -> None:
        super().__init__(run)
        self._bar = bar_for(name) if progress is True else None
        self._report: Any = progress if self._bar is None else self._bar.show
        self._counted = 0
        self._failed = 0
        self._begun = False

    async def __anext__(self) -> Batch:
        try:
            self._begin()
            batch = await self._run.__anext__()
            self._on_batch(batch)
        except asyncio.CancelledError:  # The reader has stopped waiting, and may come again.
            raise
        except BaseException as error:
            self._close_bar()
            if not isinstance(error, StopAsyncIteration):
                await self._run.aclose()
            raise
        return batch

    async def collect(
        self, *, stop_at_error: bool, on_batch: Callable[[Batch], object] | None = None
    ) -> list[Batch]:
        try:
            self._begin()
            return await self._run.collect(stop_at_error=stop_at_error, on_batch=self._on_batch)
        finally:
            self._close_bar()

    async def aclose(self) -> None:
        self._close_bar()
        await self._run.aclose()

    def __del__(self) -> None:
        self._close_bar()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._report(Progress(0, 0, self._run.total))

    def _on_batch(self, batch: Batch) -> None:
        self._counted += batch.count
        self._failed += len(batch.errors)
        self._report(Progress(self._counted, self._failed, self._run.total))

    def _close_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def bar_for(name: str) -> TerminalBar | NotebookBar | LogLines:
    """Make the bar that suits this process's stderr."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True)
    if console.is_jupyter:
        return NotebookBar(name)
    return TerminalBar(name, console) if console.is_terminal else LogLines(name)


class TerminalBar:
    """A bar on a terminal. All bars of this process share one display, a line for each map."""

    _lock = threading.Lock()
    _display: RichProgress | None = None
    _open = 0

    def __init__(self, name: str, console: Console) -> None:
        cls = TerminalBar
        with cls._lock:
            if cls._display is None:
                cls._display = rich_progress(console)
                cls._display.start()
            cls._open += 1
            self._progress = cls._display
            self._task = self._progress.add_task(name, total=None)

    def show(self, progress: Progress) -> None:
        """Draw the progress, at the next refresh."""
        done, failed, total = progress
        self._progress.update(self._task, completed=done, total=total, failed=failed)

    def close(self) -> None:
        """Leave the bar as it is; after the last one, leave the display."""
        cls = TerminalBar
        self._progress.stop_task(self._task)
        with cls._lock:
            cls._open -= 1
            if cls._open == 0:
                cls._display = None
                self._progress.stop()


class NotebookBar:
    """A bar below a notebook's cell. It needs no widgets: the cell's output is replaced."""

    def __init__(self, name: str) -> None:
        from IPython.display import display

        self._progress = rich_progress(None, width=40)
        self._task = self._progress.add_task(name, total=None)
        self._drawn = time.monotonic()
        self._handle = display(self._table(), display_id=True)

    def show(self, progress: Progress) -> None:
        """Draw the progress, unless it was drawn just now."""
        done, failed, total = progress
        self._progress.update(self._task, completed=done, total=total, failed=failed)
        now = time.monotonic()
        if now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._handle.update(self._table())

    def close(self) -> None:
        """Draw the bar as it is at the end."""
        self._progress.stop_task(self._task)
        self._handle.update(self._table())

    def _table(self) -> Any:
        return self._progress.make_tasks_table(self._progress.tasks)


class LogLines:
    """A line on stderr now and then, for pipes and log files."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._latest = Progress(0, 0, None)
        self._begun = self._written = time.monotonic()

    def show(self, progress: Progress) -> None:
        """Write a line if the last one is a while ago."""
        self._latest = progress
        now = time.monotonic()
        if now - self._written >= LINE_SECONDS:
            self._written = now
            self._write(now)

    def close(self) -> None:
        """Write the last line."""
        self._write(time.monotonic())

    def _write(self, now: float) -> None:
        if sys.stderr is not None:
            line = describe(self._name, self._latest, now - self._begun)
            print(line, file=sys.stderr, flush=True)  # noqa: T201


def describe(name: str, progress: Progress, seconds: float) -> str:
    """Format a map's progress as a line of text."""
    done, failed, total = progress
    of = "" if total is None else f" of {total:,}"
    errors = f", {failed:,} failed" if failed else ""
    return f"{name}: {done:,}{of} items done{errors}, {seconds:.1f} s"


def rich_progress(console: Console | None, width: int | None = None) -> RichProgress:
    """Make rich's display of maps. Only a bar needs rich, which is slow to import."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        """A column with the items a second over the whole map."""

        def render(self, task: Task) -> Text:
            speed = task.completed / task.elapsed if task.elapsed else 0.0
            return Text(f"{speed:,.0f}/s", style="progress.data.speed")

    class Failed(ProgressColumn):
        """A column with the number of failed items, if there are any."""

        def render(self, task: Task) -> Text:
            failed = task.fields.get("failed", 0)
            return Text(f"{failed:,} failed" if failed else "", style="red")

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=width),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        Failed(),
        console=console or Console(stderr=True, soft_wrap=True),
        expand=width is None,
    )
