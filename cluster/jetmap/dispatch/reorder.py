"""Put batches that arrive as they finish into input order."""

from __future__ import annotations

from .outcomes import Batch


class Reorder:
    """Hold back early batches.

    Attributes:
        size: Bytes of the batches held back.
    """

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, Batch] = {}
        self.size = 0

    def add(self, batch: Batch) -> list[Batch]:
        """Add a batch; return the batches that are now in order."""
        self._early[batch.start] = batch
        self.size += batch.size
        ready = []
        while (following := self._early.pop(self._next, None)) is not None:
            self._next += following.count
            self.size -= following.size
            ready.append(following)
        return ready
