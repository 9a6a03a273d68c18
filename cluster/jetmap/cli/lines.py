"""JSON lines from a file or a pipe into a map or a job, without ever blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from concurrent.futures import CancelledError as FutureCancelled
from typing import BinaryIO, Protocol

from jetmap.errors import ConfigurationError, Malformed, TooLarge
from jetmap.settings import LimitSettings
from jetmap.wire.split import Elements, JsonLines

BLOCK = 1 << 16
ARRAY_HINT = (
    "the input begins as a JSON array, and each line is an item: `jq -c '.[]' FILE` makes lines of "
    "an array's elements"
)


class Sink(Protocol):
    """Where lines go: ``put`` waits while it is full; one of the others ends it."""

    async def put(self, elements: Elements, /) -> None: ...
    def fail(self, error: BaseException, /) -> None: ...
    def close(self) -> None: ...


def count_lines(source: BinaryIO) -> int | None:
    """How many lines there are, for the progress bar; None for what is no plain file."""
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


class Reader:
    """Feeds a map or a job with the lines of a source, while the ``with`` lasts.

    It reads in a thread that nobody waits for, since a read from a terminal cannot be
    interrupted; and by descriptor, since a buffered reader's lock would hold up the exit.
    """

    def __init__(self, source: BinaryIO, feed: Sink, limits: LimitSettings) -> None:
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
        """Whether the only item is an array, so that a list of items may have been meant."""
        return self._count == 1 and self._first.startswith(b"[")

    def _read(self) -> None:
        try:
            while not self._left:
                block = os.read(self._descriptor, BLOCK)
                # Waits while the map has enough to do.
                asyncio.run_coroutine_threadsafe(self._add(block), self._loop).result()
                if not block:
                    return
        except (RuntimeError, asyncio.CancelledError, FutureCancelled):
            pass  # the loop has ended: the command is over
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
            hint = f"; {ARRAY_HINT}" if starts == b"[" and not self._count else ""
            self._feed.fail(ConfigurationError([f"the input: {exc}{hint}"]))
            return
        if not block:
            self._feed.close()
