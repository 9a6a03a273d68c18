"""Words of shared memory between an agent and its worker.

The worker writes which chunk and item it is in; the agent asks it to stop, and to pass over
chunks. Memory is shared because it can be written in 30 ns before each item, and read after the
worker has died.
"""

from __future__ import annotations

import mmap
import os

_ITEM, _STARTED, _STOP, _BEGUN, _SKIP = range(5)
_SIZE = mmap.PAGESIZE


class Progress:
    """One page, mapped by both processes; each word has one writer."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self.words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls) -> Progress:
        """A new page, in a file that has no name."""
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
        self.words[_BEGUN] = number
        return number > self.words[_SKIP]

    def skip(self, number: int) -> int:
        """Asks the worker to pass over chunks up to this number; returns ``begun``."""
        self.words[_SKIP] = number
        return self.words[_BEGUN]

    def enter(self, item: int, started_ns: int = 0) -> None:
        # The start is written first: the agent must never pair a new item with an old start.
        self.words[_STARTED] = started_ns
        self.words[_ITEM] = item + 1

    def leave(self) -> None:
        self.words[_ITEM] = 0
        self.words[_STARTED] = 0

    def ask_to_stop(self, stop: bool = True) -> None:
        """Asks the worker to end its chunk before the next item."""
        self.words[_STOP] = int(stop)

    def close(self) -> None:
        self.words.release()
        self._map.close()
        os.close(self.fd)
