"""Lists in commands: items from JSON lines, without blocking the event loop; values and errors."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError as FutureCancelled
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from jetmap.errors import ConfigurationError, Malformed, TooLarge
from jetmap.logs import harmless_json
from jetmap.settings import LimitSettings
from jetmap.wire.messages import ErrorRecord
from jetmap.wire.split import Elements, JsonLines

from .exits import Exit, say
from .progress import Bar

SHOWN_ERRORS = 100  # Errors of items to print; the others are only counted.
BLOCK = 1 << 16
LINE_HINT = (
    "each line must be one JSON value: `jq -c . FILE` makes lines of JSON values, and "
    "`jq -R . FILE` puts lines of text into quotes"
)
ARRAY_HINT = (
    "the input begins like a JSON array, but each line is an item: `jq -c '.[]' FILE` prints the "
    "elements of an array as lines"
)


# Items


class ItemSink(Protocol):
    """A destination of items: ``put`` waits while it is full; ``fail`` or ``close`` ends it."""

    async def put(self, elements: Elements, /) -> None: ...
    def fail(self, error: BaseException, /) -> None: ...
    def close(self) -> None: ...


def count_lines(source: BinaryIO) -> int | None:
    """Count the lines of a file for the progress bar; None if it is not a regular file."""
    try:
        found = os.fstat(source.fileno())
        if not stat.S_ISREG(found.st_mode) or source.tell():
            return None
        count, last = 0, b"\n"
        while block := os.read(source.fileno(), 1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
        os.lseek(source.fileno(), 0, os.SEEK_SET)
    except (OSError, ValueError):
        return None
    return count + (last != b"\n")


def _read_block(descriptor: int) -> bytes:
    """Read what is there; wait, also if another program has made the descriptor non-blocking."""
    while True:
        try:
            return os.read(descriptor, BLOCK)
        except BlockingIOError:
            select.select([descriptor], [], [])


class Reader:
    """Feed a map or a job with the lines of a source, for the duration of a ``with`` block.

    A daemon thread reads, since a read from a terminal cannot be interrupted. It reads from the
    descriptor, since the lock of a buffered reader would hold up the exit.
    """

    def __init__(self, source: BinaryIO, feed: ItemSink, limits: LimitSettings) -> None:
        self._descriptor = os.dup(source.fileno())
        self._feed = feed
        self._split = JsonLines(limits)
        self._loop = asyncio.get_running_loop()
        self._left = False
        self._start = b""  # The first block.
        self._first = b""  # The first item.
        self._count = 0
        self._thread = threading.Thread(target=self._read, name="lines", daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._left = True

    @property
    def is_one_array(self) -> bool:
        """Return whether the only item is an array, probably meant as the list of items."""
        return self._count == 1 and self._first.startswith(b"[")

    def _read(self) -> None:
        try:
            while not self._left:
                block = _read_block(self._descriptor)
                # Waits while the map has enough to do.
                asyncio.run_coroutine_threadsafe(self._add(block), self._loop).result()
                if not block:
                    return
        except (RuntimeError, asyncio.CancelledError, FutureCancelled):
            pass  # The loop has ended: the command is over.
        except OSError as exc:
            problem = ConfigurationError([f"the input cannot be read: {exc.strerror}"])
            self._loop.call_soon_threadsafe(self._feed.fail, problem)
        finally:
            os.close(self._descriptor)

    async def _add(self, block: bytes) -> None:
        if self._left:
            return
        self._start = self._start or block
        if block:
            self._split.feed(block)
        else:
            self._split.close()
        try:
            while items := self._split.next_elements():
                self._first = self._first or bytes(items[0])
                self._count += len(items)
                await self._feed.put(items)
        except (Malformed, TooLarge) as exc:
            self._left = True
            starts = self._start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            hint = ""
            if isinstance(exc, Malformed):
                hint = f"; {ARRAY_HINT if starts == b'[' and not self._count else LINE_HINT}"
            self._feed.fail(ConfigurationError([f"the input: {exc}{hint}"]))
            return
        if not block:
            self._feed.close()


# Values and errors


class ErrorPrinter:
    """Print the errors of items on stderr, up to a limit, and count them."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._count = 0

    def add(self, record: ErrorRecord, bar: Bar) -> None:
        self._count += 1
        if self._count <= SHOWN_ERRORS:
            tries = (record.detail or {}).get("tries", 1)
            tried = f" ({tries} tries)" if tries > 1 else ""
            bar.say(f"item {record.index}: {record.type}: {record.message}{tried}")
            if self._debug and record.traceback:
                bar.say(record.traceback)

    def finish(self, *, tolerated: bool = False) -> Exit:
        """Print the number of failed items. Returns the exit code.

        tolerated: whether that many items may fail.
        """
        if self._count > SHOWN_ERRORS:
            say(f"and {self._count - SHOWN_ERRORS} more errors")
        if self._count:
            say(f"{self._count} item{'s' if self._count > 1 else ''} failed")
        return Exit.ITEMS_FAILED if self._count and not tolerated else Exit.OK


def write_values(values: Sequence[bytes | msgspec.Raw]) -> None:
    """Write JSON values to stdout, one a line; to a terminal, without control characters."""
    lines = b"".join(part for value in values for part in (value, b"\n"))
    if sys.stdout.isatty():
        lines = harmless_json(lines.decode("utf-8", "replace")).encode()
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


def open_lines(file: str) -> BinaryIO:
    """Open a file of items, or stdin for ``-``. Raises ConfigurationError."""
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
