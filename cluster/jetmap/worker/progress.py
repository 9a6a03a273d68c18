"""Words of shared memory between an agent and its worker.

The worker writes which chunk and item it is in, and until when it may begin another item; the
agent asks it to stop, and to pass over chunks. Memory is shared because it can be written in 30 ns
before each item, and read after the worker has died. So its unfinished lines of output are kept
there too: the last words of a worker that crashes.
"""

from __future__ import annotations

import mmap
import os

_ITEM, _STARTED, _STOP, _BEGUN, _SKIP, _COLD, _LATEST, _DUE, _EACH = range(9)
_WORDS = mmap.PAGESIZE
_LAST_WORDS = 2  # Pages: one for each of stdout and stderr.
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
        """The unfinished line, or as much of its end as there is room for."""
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


class Progress:
    """Three pages, mapped by both processes; each word has one writer."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._view = memoryview(self._map)
        self.words = self._view[:_WORDS].cast("Q")
        pages = [_WORDS + number * mmap.PAGESIZE for number in range(_LAST_WORDS)]
        self.last_words = [LastWords(self._view[at : at + mmap.PAGESIZE]) for at in pages]

    @classmethod
    def create(cls) -> Progress:
        """New pages, in a file that has no name, and where possible no disk."""
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
        """The index in its map of the item in progress, or None between items."""
        word: int = self.words[_ITEM]
        return word - 1 if word else None

    @property
    def started_ns(self) -> int:
        """When that item started, on this host's monotonic clock; 0 if it has no timeout."""
        return self.words[_STARTED]

    @property
    def is_cold(self) -> bool:
        """Whether the item in progress is its function's first in this worker.

        Read it before ``item``: it is written false only between items.
        """
        return bool(self.words[_COLD])

    def set_cold(self, cold: bool) -> None:
        self.words[_COLD] = cold

    @property
    def stopping(self) -> bool:
        return bool(self.words[_STOP])

    @property
    def begun(self) -> int:
        """The number of the chunk that the worker began, or passed over, last."""
        return self.words[_BEGUN]

    def begin(self, number: int) -> bool:
        """The worker comes to its next chunk. Returns whether it is still wanted.

        It writes before it reads, and the agent, in ``skip``, the other way round: a chunk that
        the agent does not see begun after it has asked is not begun.
        """
        self.words[_DUE] = 0
        self.words[_BEGUN] = number
        return number > self.words[_SKIP]

    def skip(self, number: int) -> int:
        """Asks the worker to pass over chunks up to this number; returns ``begun``."""
        self.words[_SKIP] = number
        return self.words[_BEGUN]

    def due(self, position: int) -> float:
        """When a chunk that is in its item at ``position`` gives back those behind, on this
        host's monotonic clock; 0: not known (yet)."""
        due = self.words[_DUE]
        return (due + position * self.words[_EACH]) / 1e9 if due else 0.0

    def expect(self, at: float, each: float) -> None:
        """Write until when the chunk may begin its second item; ``each``: every later one so many
        seconds later."""
        self.words[_EACH] = int(each * 1e9)
        self.words[_DUE] = int(at * 1e9)

    def enter(self, item: int, started_ns: int = 0) -> None:
        # The start is written first: the agent must never pair a new item with an old start.
        self.words[_STARTED] = started_ns
        self.words[_ITEM] = item + 1

    @property
    def latest_item(self) -> int | None:
        """The item in progress, or the one that ended last."""
        word: int = self.words[_ITEM] or self.words[_LATEST]
        return word - 1 if word else None

    def leave(self) -> None:
        self.words[_LATEST] = self.words[_ITEM] or self.words[_LATEST]
        self.words[_ITEM] = 0
        self.words[_STARTED] = 0

    def ask_to_stop(self, stop: bool = True) -> None:
        """Asks the worker to end its chunk before the next item."""
        self.words[_STOP] = int(stop)

    def leave_to_parent(self) -> None:
        """In a forked child: go on in memory of its own, with the same words in it."""
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
