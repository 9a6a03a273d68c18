"""Memory shared by an agent and its worker.

The worker writes its current chunk and item, and until when it may begin another item; the agent
asks it to stop, and to pass over chunks. Shared memory can be written in 30 ns before each item,
and read after the worker has died. So the worker's unfinished lines of output are kept there too:
the last words of a worker that crashes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

ITEM, STARTED, STOP, _BEGUN, _SKIP, _COLD, _LATEST, _DUE, _EACH, _CALL = range(10)
# Bits of the item's number in ITEM. Above them is how many items were entered with it.
STRETCH_SHIFT = 48
_NUMBER = (1 << STRETCH_SHIFT) - 1
_WORDS = mmap.PAGESIZE
_LAST_WORDS = 2  # Pages of last words: one for each of stdout and stderr.
_SIZE = _WORDS + _LAST_WORDS * mmap.PAGESIZE


class LastWords:
    """The end of an unfinished line, in a ring of shared memory."""

    def __init__(self, page: memoryview) -> None:
        self._head = page[:16].cast("Q")  # Bytes ever written, and where the line began.
        self._ring = page[16:]

    def append(self, data: bytes) -> None:
        size = len(self._ring)
        end: int = self._head[0] + len(data)
        data = data[-size:]
        at = (end - len(data)) % size
        first = data[: size - at]
        self._ring[at : at + len(first)] = first
        self._ring[: len(data) - len(first)] = data[len(first) :]
        self._head[0] = end

    def clear(self) -> None:
        self._head[1] = self._head[0]

    def read(self) -> bytes:
        """Return the unfinished line, or as much of its end as fits."""
        size = len(self._ring)
        end, start = self._head
        start = max(start, end - size)
        if end <= start:
            return b""
        whole = bytes(self._ring)
        at = start % size
        return (whole[at:] + whole[:at])[: end - start]

    def release(self) -> None:
        self._head.release()
        self._ring.release()


class ProgressPages:
    """Three pages, mapped by both processes; each word has one writer.

    ``compute`` writes and reads words itself: a call would cost more than most of an item's rest.

    Attributes:
        exact: In the worker, returns the index of the item in progress, where shared memory only
            has the first of a stretch of tiny items; None before the first chunk.
    """

    exact: Callable[[], int] | None = None

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._view = memoryview(self._map)
        self.words = self._view[:_WORDS].cast("Q")
        pages = [_WORDS + number * mmap.PAGESIZE for number in range(_LAST_WORDS)]
        self.last_words = [LastWords(self._view[at : at + mmap.PAGESIZE]) for at in pages]

    @classmethod
    def create(cls) -> ProgressPages:
        """Make new pages, in a file without a name and, where possible, without a disk."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("jetmap-progress")
            os.ftruncate(fd, _SIZE)
            return cls(fd)
        import tempfile  # Only agents make pages.

        with tempfile.TemporaryFile() as file:
            file.truncate(_SIZE)
            return cls(os.dup(file.fileno()))

    @property
    def item(self) -> int | None:
        """The index in its map of the item in progress, or None between items.

        An agent sees the first item of a stretch.
        """
        word: int = self.words[ITEM]
        if word > _NUMBER and self.exact is not None:
            return self.exact()
        return (word & _NUMBER) - 1 if word else None

    @property
    def stretch(self) -> tuple[int | None, int]:
        """The index of the first item in progress, or None, and how many were entered with it."""
        word: int = self.words[ITEM]
        return (word & _NUMBER) - 1 if word else None, (word >> STRETCH_SHIFT) + 1

    @property
    def started_ns(self) -> int:
        """The start of that item, on this host's monotonic clock; 0 if it has no timeout."""
        return self.words[STARTED]

    @property
    def is_cold(self) -> bool:
        """Return whether the item in progress is its function's first in this worker.

        Read it before ``item``: it is written false only between items.
        """
        return bool(self.words[_COLD])

    def set_cold(self, cold: bool) -> None:
        self.words[_COLD] = cold

    @property
    def stopping(self) -> bool:
        return bool(self.words[STOP])

    @property
    def begun(self) -> int:
        """The number of the chunk that the worker began, or passed over, last."""
        return self.words[_BEGUN]

    def begin(self, number: int) -> bool:
        """Begin the next chunk; return whether it is still wanted.

        The worker writes before it reads, and the agent, in ``skip``, reads after it writes: a
        chunk that the agent does not see begun after it has asked is not begun.
        """
        self.words[_DUE] = 0
        self.words[_BEGUN] = number
        return number > self.words[_SKIP]

    def skip(self, number: int) -> int:
        """Ask the worker to pass over chunks up to this number; return ``begun``."""
        self.words[_SKIP] = number
        return self.words[_BEGUN]

    def due(self, position: int) -> float:
        """Return when a chunk in its item at ``position`` gives back the items behind it.

        The time is on this host's monotonic clock; 0 while it is not known.
        """
        due = self.words[_DUE]
        return (due + position * self.words[_EACH]) / 1e9 if due else 0.0

    def expect(self, at: float, each: float) -> None:
        """Write until when the chunk may begin its second item; each later one ``each`` seconds
        later.
        """
        self.words[_EACH] = int(each * 1e9)
        self.words[_DUE] = int(at * 1e9)

    def enter(self, item: int, started_ns: int = 0) -> None:
        # The start is written first: the agent must never pair a new item with an old start.
        self.words[STARTED] = started_ns
        self.words[ITEM] = item + 1

    def enter_call(self, item: int, items: int, started_ns: int = 0) -> None:
        """Enter a call that takes several items, in this chunk from ``item`` on and maybe in the
        next chunks.
        """
        self.words[_CALL] = items
        self.enter(item, started_ns)

    @property
    def call(self) -> int:
        """The number of items of the call in progress."""
        return self.words[_CALL] or 1

    def leave_batch(self) -> None:
        """Go on with chunks whose items are computed one by one."""
        self.words[_CALL] = 0

    @property
    def latest_stretch(self) -> tuple[int | None, int]:
        """The stretch in progress, or the one that ended last."""
        word: int = self.words[ITEM] or self.words[_LATEST]
        return (word & _NUMBER) - 1 if word else None, (word >> STRETCH_SHIFT) + 1

    def leave(self) -> None:
        self.words[_LATEST] = self.words[ITEM] or self.words[_LATEST]
        self.words[ITEM] = 0
        self.words[STARTED] = 0

    def ask_to_stop(self, stop: bool = True) -> None:
        """Ask the worker to end its chunk before the next item."""
        self.words[STOP] = int(stop)

    def leave_to_parent(self) -> None:
        """Go on, in a forked child, with a copy of the words in its own memory."""
        words = memoryview(bytearray(self.words)).cast("Q")
        self.close()
        self.words = words

    def close(self) -> None:
        self.words.release()
        for kept in self.last_words:
            kept.release()
        self._view.release()
        self._map.close()
        os.close(self.fd)
