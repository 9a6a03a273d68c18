"""Decide which chunks are computed together, and how a batch goes on when its worker died. No I/O.

Items of several maps, and of several dispatchers, share a call of a function that takes a list.
Only their agent knows which were together, so the agent halves a batch whose call cost a worker:
the halves go to the next workers, until the guilty item is alone. Its dispatcher learns of that
item only, as of any other that costs its worker; the others lose no attempt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Member(Protocol):
    """A chunk, as its batch sees it."""

    @property
    def left(self) -> int:
        """Number of items, at its end, that have no outcome."""
        ...

    @property
    def unwanted(self) -> bool:
        """Return whether nobody wants it any more."""
        ...


C = TypeVar("C", bound=Member)


@dataclass(eq=False)
class ChunkBatch(Generic[C]):
    """Chunks for one worker.

    Attributes:
        runs: How many of the items that are left, in order, may share calls with each other.
        is_split: Whether a worker died of these items: then they wait for the next one here.
    """

    chunks: list[C]
    runs: list[int]
    is_split: bool = False

    @property
    def items(self) -> int:
        return sum(chunk.left for chunk in self.chunks)

    def drop(self, chunk: C) -> None:
        """Leave out a chunk that nobody wants any more."""
        at = self.chunks.index(chunk)
        start = sum(each.left for each in self.chunks[:at])
        self.runs = _without(self.runs, start, start + chunk.left)
        del self.chunks[at]

    def drop_unwanted(self) -> list[C]:
        """Leave out the chunks that nobody wants any more, and return them."""
        unwanted = [chunk for chunk in self.chunks if chunk.unwanted]
        for chunk in unwanted:
            self.drop(chunk)
        return unwanted


@dataclass
class Halved(Generic[C]):
    """The consequences of a death for a batch.

    Attributes:
        again: The batches that go on.
        guilty: The chunk whose dispatcher decides: its item was alone in the call, or it was alone
            and no call was in progress.
    """

    again: list[ChunkBatch[C]] = field(default_factory=list)
    guilty: C | None = None


def halved(batch: ChunkBatch[C], begun: C, before: int | None, call: int) -> Halved[C]:
    """Decide how a batch goes on whose worker has died. Chunks that have ended are not in it.

    Args:
        begun: The chunk with the first item of the call.
        before: Items of it, among those that are left, before that call; None: no call was in
            progress.
        call: Items of that call.
    """
    chunks, total = batch.chunks, batch.items
    runs = _without(batch.runs, 0, sum(batch.runs) - total)
    if before is None:
        if len(chunks) == 1:
            return Halved(guilty=chunks[0])
        middle = len(chunks) // 2
        at = sum(chunk.left for chunk in chunks[:middle])
        first = ChunkBatch(chunks[:middle], _without(runs, at, total), True)
        return Halved([first, ChunkBatch(chunks[middle:], _without(runs, 0, at), True)])
    start = sum(chunk.left for chunk in chunks[: chunks.index(begun)]) + before
    size = min(call, total - start)
    if size <= 1:
        rest = ChunkBatch(list(chunks), runs, True)
        rest.drop(begun)
        return Halved([rest] if rest.chunks else [], begun)
    behind = _without(runs, 0, start + size)
    parts = [*_without(runs, start, total), size - size // 2, size // 2, *behind]
    return Halved([ChunkBatch(list(chunks), parts, True)])


def _without(runs: list[int], start: int, end: int) -> list[int]:
    """Return runs of items without those from position ``start`` to behind ``end``."""
    kept, at = [], 0
    for run in runs:
        cut = max(0, min(end, at + run) - max(start, at))
        at += run
        if run > cut:
            kept.append(run - cut)
    return kept


@dataclass
class _Open(Generic[C]):
    """A batch that waits for more items, until ``due``."""

    chunks: list[C]
    items: int
    due: float


class Gathering(Generic[C]):
    """The batches of one agent that have not begun. Times are seconds of one clock.

    A batch is open until it is full, or its first items have lingered for long enough. Then it
    is ready, and begins with the next idle core.
    """

    def __init__(self) -> None:
        self._open: dict[Hashable, _Open[C]] = {}  # The oldest first.
        self._ready: deque[ChunkBatch[C]] = deque()

    @property
    def open(self) -> int:
        """Number of batches that wait for more items."""
        return len(self._open)

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    @property
    def due(self) -> float | None:
        """Time at which the next open batch is ready; None if none is open."""
        return min((batch.due for batch in self._open.values()), default=None)

    def add(self, key: Hashable, chunk: C, size: int, linger: float, now: float) -> None:
        """Add a chunk.

        Args:
            key: Equal for chunks whose items may share a call.
            size: Items of a call, at most.
            linger: Seconds that a call with fewer items waits for more.
        """
        items = chunk.left
        batch = self._open.get(key)
        if items >= size:
            self._ready.append(ChunkBatch([chunk], [items]))
            return
        if batch is not None and batch.items + items > size:
            self._close(key)
            batch = None
        if batch is None:
            batch = self._open[key] = _Open([], 0, now + linger)
        batch.chunks.append(chunk)
        batch.items += items
        if batch.items == size or not linger:
            self._close(key)

    def add_again(self, batches: list[ChunkBatch[C]]) -> None:
        """Add what is left of a batch whose worker died: it goes first."""
        self._ready.extendleft(reversed(batches))

    def on_time(self, now: float) -> None:
        """Close the batches that have lingered for long enough."""
        for key in [key for key, batch in self._open.items() if batch.due <= now]:
            self._close(key)

    def hurry(self) -> None:
        """Close the oldest batch: its core is wanted."""
        if self._open:
            self._close(next(iter(self._open)))

    def take(self) -> ChunkBatch[C] | None:
        """Return the next batch to begin."""
        return self._ready.popleft() if self._ready else None

    def take_unsplit(self) -> list[C]:
        """Return the chunks that no core here is idle for: other agents may have one."""
        for key in list(self._open):
            self._close(key)
        given = [chunk for batch in self._ready if not batch.is_split for chunk in batch.chunks]
        self._ready = deque(batch for batch in self._ready if batch.is_split)
        return given

    def clear(self) -> list[C]:
        """Return all chunks."""
        given = self.take_unsplit() + [chunk for batch in self._ready for chunk in batch.chunks]
        self._ready.clear()
        return given

    def drop(self, chunk: C) -> None:
        """Leave out a chunk that nobody wants any more."""
        for key, batch in list(self._open.items()):
            if chunk in batch.chunks:
                batch.chunks.remove(chunk)
                batch.items -= chunk.left
                if not batch.chunks:
                    del self._open[key]
        for ready in list(self._ready):
            if chunk in ready.chunks:
                ready.drop(chunk)
                if not ready.chunks:
                    self._ready.remove(ready)

    def _close(self, key: Hashable) -> None:
        batch = self._open.pop(key)
        self._ready.append(ChunkBatch(batch.chunks, [batch.items]))
