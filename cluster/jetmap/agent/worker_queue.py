"""The chunks handed to one worker, in the order in which it answers them. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from .holdings import HeldChunk


@dataclass(eq=False)
class QueueEntry:
    """A place in a worker's queue."""

    number: int  # Worker and agent both count the chunks of a worker, from 1 on.
    held: HeldChunk
    revoked: bool = False  # It was handed back; the worker has yet to pass over it.


class WorkerQueue:
    """A queue whose first chunk the worker is in, or will be in next."""

    def __init__(self) -> None:
        self._chunks: deque[QueueEntry] = deque()
        self._last = 0

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[QueueEntry]:
        return iter(self._chunks)

    @property
    def first(self) -> QueueEntry | None:
        return self._chunks[0] if self._chunks else None

    @property
    def last(self) -> int:
        """The number of the latest chunk."""
        return self._last

    def has(self, held: HeldChunk) -> bool:
        """Whether the worker has yet to end this chunk."""
        return any(entry.held is held and not entry.revoked for entry in self._chunks)

    def push(self, held: HeldChunk) -> QueueEntry:
        self._last += 1
        entry = QueueEntry(self._last, held)
        self._chunks.append(entry)
        return entry

    def pop(self) -> QueueEntry | None:
        """Remove the first chunk: the worker has ended it, or passed over it."""
        return self._chunks.popleft() if self._chunks else None

    def revoke(self, begun: int) -> list[QueueEntry]:
        """Take back the chunks behind the first that the worker has not begun.

        begun: number of the chunk that the worker began last.
        """
        revoked = []
        for entry in list(self._chunks)[1:]:
            if entry.number > begun and not entry.revoked:
                entry.revoked = True
                revoked.append(entry)
        return revoked
