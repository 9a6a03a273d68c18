"""Mark a function's prints and logs with the map and item that wrote them."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .lines import Keep, MarkedLines, OutputBudget, Render, marked

# The streams that functions print to instead of an ``Output``'s, and whose owner flushes them after
# each item. The worker of an executor has them from its first call on.
flushed_elsewhere: tuple[io.TextIOBase | None, ...] = ()

LATE_SECONDS = 0.5  # Seconds after which the unfinished line of a thread ends, if no item ends it.


class MarkedBuffer(io.BufferedIOBase):
    """The bytes under ``sys.stdout`` or ``sys.stderr``, cut into lines and marked.

    It stays open: a function that replaces ``sys.stdout`` closes the buffer that it wrapped when
    the wrapper goes, and the next item still wants to print.
    """

    mode = "wb"

    def __init__(self, output: Output, lines: MarkedLines, fd: int, name: str) -> None:
        self._output = output
        self._lines = lines
        self._fd = fd
        self._ours = _file_of(fd)
        self.name = name

    @property
    def raw(self) -> Any:
        return self

    def write(self, data: Any, /) -> int:
        written = bytes(data)
        # A function, or its forked child, may have put a file or a terminal on this descriptor.
        if _file_of(self._fd) in (self._ours, None):
            self._output.print(self._lines, written)
        else:
            write_all(self._fd, written)
        return len(written)

    def detach(self) -> Any:
        raise io.UnsupportedOperation(
            "the worker's output is not buffered: there is nothing to detach"
        )

    def close(self) -> None:
        """Do nothing: the buffer stays open."""

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False


class Output:
    """Both streams of this process, written to ``fd`` line by line.

    Args:
        mark: Returns the mark of a line that is written now.
        fd: Descriptor to write lines to.
        rate: Bytes a second that may be printed.
        needed: Called when ``finish`` has something to do.
        keeps: Place to keep the unfinished line of each stream.
        render: How a line is written.
        in_item: Returns whether an item is in progress; once it has ended, ``finish`` is called if
            ``needed`` was.
    """

    def __init__(
        self,
        mark: Callable[[], str],
        fd: int,
        rate: int,
        needed: Callable[[], None],
        keeps: Sequence[Keep | None] = (None, None),
        render: Render = marked,
        in_item: Callable[[], bool] = lambda: False,
    ) -> None:
        self._mark = mark
        self._fd = fd
        self._needed = needed
        self._in_item = in_item
        self._thread = threading.get_ident()  # That of the items.
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()  # Reentrant: a signal handler may print during a print.
        budget = OutputBudget(rate)
        self._lines = [MarkedLines(budget, keep, render) for keep in keeps]
        self.stdout = _text(MarkedBuffer(self, self._lines[0], 1, "<stdout>"))
        self.stderr = _text(MarkedBuffer(self, self._lines[1], 2, "<stderr>"))

    def redirect(self) -> None:
        """Make these the process's streams."""
        sys.stdout = sys.__stdout__ = self.stdout  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self.stderr  # type: ignore[misc]

    def print(self, lines: MarkedLines, data: bytes) -> None:
        """Process output of one of the streams."""
        with self._lock:
            self._write(lines.feed(data, self._mark(), time.monotonic()))
            if lines.unfinished:
                self._needed()
                if threading.get_ident() != self._thread:
                    self._finish_later()

    def finish(self) -> bool:
        """End unfinished lines, while their mark still holds.

        Returns whether to call this after the next item, whatever that prints: the function has put
        a stream between itself and this one, which may hold back text.
        """
        wrapped = False
        known = self.stdout, self.stderr, *flushed_elsewhere
        for stream in (sys.stdout, sys.stderr):
            if not any(stream is each for each in known):
                wrapped = True
                with contextlib.suppress(Exception):
                    stream.flush()
        self._end_lines()
        return wrapped

    def after_fork(self) -> None:
        """Leave the unfinished lines, in a forked child, to its parent."""
        self._lock = threading.RLock()
        self._thread, self._timer = threading.get_ident(), None
        for lines in self._lines:
            lines.forget()

    def _end_lines(self) -> None:
        with self._lock:
            for lines in self._lines:
                self._write(lines.finish(time.monotonic()))

    def _finish_later(self) -> None:
        """End a thread's line soon: it may go on after its item, and no other may come."""
        if self._timer is None:
            timer = threading.Timer(LATE_SECONDS, self._finish_late)
            timer.daemon = True
            with contextlib.suppress(RuntimeError):  # There may be no more threads.
                timer.start()
                self._timer = timer

    def _finish_late(self) -> None:
        with self._lock:
            self._timer = None
            if not self._in_item():
                self._end_lines()
            elif any(lines.unfinished for lines in self._lines):
                self._finish_later()

    def _write(self, writes: list[bytes]) -> None:
        try:
            for data in writes:
                write_all(self._fd, data)
        except OSError:
            # The agent's stderr is gone; a function must not fail for that.
            return


def write_all(fd: int, data: bytes) -> None:
    """Write all data to a descriptor that may take less at once.

    Another program may have made it non-blocking.
    """
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            full = select.poll()
            full.register(fd, select.POLLOUT)
            full.poll()


def _file_of(fd: int) -> tuple[int, int] | None:
    """Return the device and inode of the file open under this descriptor."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _text(buffer: MarkedBuffer) -> io.TextIOWrapper:
    text = io.TextIOWrapper(
        buffer, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True
    )
    text.mode = "w"  # type: ignore[misc]
    return text
