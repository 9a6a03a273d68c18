"""The chunks handed to one worker, and the watches over the one in progress."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import msgspec

from jetmap.wire.messages import Crash, Hurry, Rest
from jetmap.worker.progress import ProgressPages

from .batches import ChunkBatch, halved
from .holdings import HeldChunk
from .warm_ups import WarmUps
from .watchdogs import Deadline, Jam, Overrun, Watch
from .worker_state import Death

HURRIES_KEPT = 16  # Maps whose long chunks end early, to remember.
SKIP_SECONDS = 1.0  # Seconds for a worker to pass over a chunk, which takes microseconds.


class QueueEntry(msgspec.Struct, eq=False):
    """A place in a worker's queue."""

    number: int  # Worker and agent both count the chunks of a worker, from 1 on.
    held: HeldChunk
    revoked: bool = False  # It was handed back; the worker has yet to pass over it.
    grace: float | None = None  # Seconds that it may go on once it has begun, if it is to stop.


@dataclass(frozen=True)
class KillReason:
    """The reason for which an agent killed a worker, or let it go."""

    reason: str  # "timeout" or "stopped".
    entry: QueueEntry | None = None  # For a timeout: the chunk,
    item: int | None = None  # and its item.
    beside: str = ""  # Text behind the timeout in the message.


def crash_of(
    death: Death, killed: KillReason | None, entry: QueueEntry, item: int | None, items: int = 1
) -> Crash:
    """Describe the death of a worker in a chunk.

    Args:
        item: The one in progress, or the first that was entered with it.
        items: How many were entered together.
    """
    if killed is None:
        peak = f"{death.peak_memory / 2**20:.0f} MiB"
        where = "this item" if items == 1 else f"one of {items} items"
        message = f"the worker {death} in {where}; its memory peaked at {peak}"
        crash = Crash(item, "died", message, death.signal, death.exit_code, death.peak_memory)
        crash.items = items
        return crash
    if killed.reason == "timeout" and killed.entry is entry and killed.item == item is not None:
        message = (
            f"it computed for longer than its timeout of {entry.held.head.timeout:g} s"
            f"{killed.beside}; its worker was replaced"
        )
        return Crash(item, "timeout", message)
    # Killed for an item that it had just finished, or for none: no item is to blame.
    return Crash(None, "stopped", "the worker was stopped")


@dataclass
class Lost:
    """The chunks that were lost with a worker.

    Attributes:
        chunks: Those to report, each with the description of the death for the one that the
            worker was in.
        again: Batches that this agent computes again.
        halved: The death with a call of several items, for the chunk that began it; None: the
            items in ``again`` are not to blame.
        items: Number of items of that call.
    """

    chunks: list[tuple[HeldChunk, Crash | None]]
    again: list[ChunkBatch[HeldChunk]] = field(default_factory=list)
    halved: tuple[HeldChunk, Crash] | None = None
    items: int = 0


class QueueOwner(Protocol):
    """The slot, as the queue of its worker sees it."""

    def kill(self, reason: KillReason) -> None: ...
    def hand_back(self, entries: list[QueueEntry]) -> None: ...
    def hand_on(self, held: HeldChunk, rest: Rest) -> None: ...


class WorkerQueue:
    """A queue whose first chunk the worker is in, or will be in next.

    Args:
        progress: The pages shared with the worker; None while there is none.
        hurries: Requests to end long chunks early, by map; they outlive the worker.

    Attributes:
        since: Time at which the worker began or ended a chunk, or became ready.
        latest: The chunk that the worker has ended last.
    """

    def __init__(
        self,
        owner: QueueOwner,
        warm_ups: WarmUps,
        progress: ProgressPages | None = None,
        hurries: dict[str, Hurry] | None = None,
    ) -> None:
        self.since = time.monotonic()
        self.latest: HeldChunk | None = None
        self._owner = owner
        self._warm_ups = warm_ups
        self._progress = progress
        self._chunks: deque[QueueEntry] = deque()
        self._last = 0  # Number of the latest chunk,
        self._first = 1  # and of the first that came with it.
        self._watches: list[Watch | asyncio.TimerHandle] = []  # Of the chunk in progress.
        self._hurries = {} if hurries is None else hurries
        self._jam: Jam | None = None
        # All chunks, if they are computed together.
        self._batch: ChunkBatch[HeldChunk] | None = None

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[QueueEntry]:
        return iter(self._chunks)

    @property
    def held(self) -> HeldChunk | None:
        """The chunk that the worker is in."""
        entry = self._chunks[0] if self._chunks else None
        return entry.held if entry is not None and not entry.revoked else None

    @property
    def item(self) -> int | None:
        """The item in progress, or the first that was entered with it."""
        return self._stretch[0]

    @property
    def _stretch(self) -> tuple[int | None, int]:
        """The first item in progress, and how many were entered together."""
        if self._progress is None or not self._chunks:
            return None, 1
        is_in_first = self._progress.begun == self._chunks[0].number
        return self._progress.stretch if is_in_first else (None, 1)

    def mark(self, *, late: bool = True) -> str:
        """Return the mark of output that bypasses ``sys.stdout``; empty if its item is not known.

        Other threads call this. late: such output takes a moment to arrive, so between two chunks
        the last item is still its author.
        """
        first = self._chunks[0] if self._chunks else None
        if self._progress is None:
            return ""
        try:
            in_first = first is not None and self._progress.begun == first.number
            progress = self._progress
            item, items = progress.latest_stretch if late else progress.stretch
        except ValueError:
            return ""  # The pages of a dead worker have just been unmapped.
        held = first.held if first is not None and in_first else self.latest
        if held is None or item is None:
            return ""
        named = f"item {item}" if items == 1 else f"items {item}-{item + items - 1}"
        return f"[{held.head.map} {named}]"

    def find(self, held: HeldChunk) -> QueueEntry | None:
        """Return the place of a chunk that the worker has yet to end."""
        for entry in self._chunks:
            if entry.held is held and not entry.revoked:
                return entry
        return None

    def push(
        self,
        chunks: list[HeldChunk],
        send: Callable[[bytes], None],
        batch: ChunkBatch[HeldChunk] | None = None,
    ) -> None:
        """Give an idle worker chunks, to be computed one after the other, or as a batch."""
        assert self._progress is not None and not self._chunks
        self._progress.ask_to_stop(False)
        self._batch, self._first = batch, self._last + 1
        for held in chunks:
            self._last += 1
            self._chunks.append(QueueEntry(self._last, held))
        self._begin(self._chunks[0])
        for held in chunks:
            send(held.data)
        if len(chunks) > 1 and batch is None:
            self._jam = Jam(self._progress, self._chunks[0].number, self._on_jam)

    def pop(self) -> QueueEntry | None:
        """Remove the first chunk: the worker has ended it, or passed over it."""
        if not self._chunks:
            return None
        entry = self._chunks.popleft()
        self.latest = entry.held
        self._cancel_watches(jam=len(self._chunks) < 2)
        return entry

    def advance(self) -> None:
        """Go on to the first chunk, which the worker has begun meanwhile."""
        entry = self._chunks[0]
        if entry.revoked:
            self._kill_later(entry, SKIP_SECONDS)
        else:
            self._begin(entry)

    def stop(self, entry: QueueEntry, grace: float) -> None:
        """End a chunk before its next item; after ``grace`` seconds kill the worker.

        The items computed until then are reported. A chunk that has not begun ends when it does. A
        batch goes on for those of its chunks that are wanted.
        """
        assert self._progress is not None
        entry.grace = grace
        if self._batch is not None and all(each.grace is not None for each in self._chunks):
            entry = self._chunks[0]
        elif self._batch is not None:
            return
        if entry is self._chunks[0]:
            self._progress.ask_to_stop()
            self._kill_later(entry, grace)

    def hurry(self, request: Hurry) -> None:
        """End the chunk in progress before its next item, and later ones after a while, if they
        are meant.
        """
        self._hurries[request.map] = request
        if len(self._hurries) > HURRIES_KEPT:
            del self._hurries[next(iter(self._hurries))]
        if self._chunks and self._hurry_of(self._chunks[0]) is request:
            self._end_early(self._chunks[0])

    def _hurry_of(self, entry: QueueEntry) -> Hurry | None:
        """Return the request that means a chunk. Batches are not hurried."""
        head = entry.held.head
        request = self._hurries.get(head.map)
        is_meant = request is not None and head.number <= request.chunk and self._batch is None
        return request if is_meant else None

    def _end_early(self, entry: QueueEntry) -> None:
        if self._chunks and self._chunks[0] is entry:
            assert self._progress is not None
            self._progress.ask_to_stop()

    def lose(self, crash_of: Callable[[QueueEntry, int | None, int], Crash] | None) -> Lost:
        """End the watches of a dead worker; return what is lost with it.

        crash_of: describes its death in a chunk, for the one that it was in.
        """
        self._cancel_watches()
        assert self._progress is not None
        begun, (item, items) = self._progress.begun, self._progress.stretch
        entry = next((each for each in self._chunks if each.number == begun), None)
        batch, beside = self._batch, list[HeldChunk]()
        if batch is not None:
            batch.chunks = [each.held for each in self._chunks]
        elif entry is not None and not entry.revoked and self._progress.call > 1:
            batch = ChunkBatch([entry.held], [entry.held.left])
            beside = [e.held for e in self._chunks if e is not entry and not e.revoked]
        if batch is not None and batch.chunks and crash_of is not None and begun >= self._first:
            # One whose frame was read already has ended: the worker was between two calls.
            first = entry or self._chunks[0]
            crash = crash_of(first, item if first is entry else None, 1)
            if crash.reason != "stopped":
                self._chunks.clear()
                lost = self._lose_call(batch, first.held, crash)
                lost.chunks += [(held, None) for held in beside]
                return lost
        lost = Lost([])
        for each in self._chunks:
            if not each.revoked:
                if crash_of is not None and each is entry:
                    lost.chunks.append((each.held, crash_of(each, item, items)))
                else:
                    lost.chunks.append((each.held, None))
        self._chunks.clear()
        return lost

    def _lose_call(self, batch: ChunkBatch[HeldChunk], held: HeldChunk, crash: Crash) -> Lost:
        """Decide how a batch goes on whose worker died. held: the chunk that began the call."""
        assert self._progress is not None
        before = None if crash.item is None else max(0, crash.item - held.end)
        found = halved(batch, held, before, self._progress.call)
        if found.guilty is not None:
            return Lost([(found.guilty, crash)], found.again)
        items = batch.items if before is None else self._progress.call
        return Lost([], found.again, (held, crash), items)

    def _begin(self, entry: QueueEntry) -> None:
        """Start the watches for the chunk that the worker computes from now on."""
        progress, head = self._progress, entry.held.head
        assert progress is not None
        self.since = time.monotonic()
        if head.timeout is not None:
            passed = partial(self._on_timeout, entry)
            allowance = partial(self._warm_ups.allowance, head.function)
            self._watches.append(Deadline(progress, entry.number, head.timeout, passed, allowance))
        if head.count > 1 and head.budget and self._batch is None:
            spent = partial(self._on_overrun, entry)
            self._watches.append(Overrun(progress, entry.number, head.start, head.budget, spent))
        request = self._hurry_of(entry) if self._hurries else None
        # A chunk that is not long has twice these seconds, at most.
        if request is not None and head.budget > 2.01 * request.seconds:
            loop = asyncio.get_running_loop()
            self._watches.append(loop.call_later(request.seconds, self._end_early, entry))
        if entry.grace is not None:
            self.stop(entry, entry.grace)
        elif progress.stopping:
            # The request was meant for the chunk before. (A chunk that saw it is handed back.)
            progress.ask_to_stop(False)

    def _kill_later(self, entry: QueueEntry, grace: float) -> None:
        """Kill the worker if this chunk has not ended in ``grace`` seconds."""

        def kill() -> None:
            if self._chunks and self._chunks[0] is entry:
                self._owner.kill(KillReason("stopped"))

        asyncio.get_running_loop().call_later(grace, kill)

    def _on_timeout(self, entry: QueueEntry, item: int, cold: bool) -> None:
        """Kill the worker for an item that computes for too long.

        cold: whether it is the first call of its function in this worker.
        """
        beside = self._warm_ups.on_expired(entry.held.head.function) if cold else ""
        self._owner.kill(KillReason("timeout", entry, item, beside))

    def _on_overrun(self, entry: QueueEntry) -> None:
        """Send the items behind the one in progress elsewhere: the chunk's budget is spent."""
        held = entry.held
        if self.held is not held or self._next_item(held) is None:
            return
        assert self._progress is not None
        self._progress.ask_to_stop()
        start = self._next_item(held)
        if start is not None and not held.unwanted:
            held.handed_on = held.head.start + held.head.count - start
            self._owner.hand_on(held, Rest(start, time.monotonic() - self.since))

    def _next_item(self, held: HeldChunk) -> int | None:
        """Return the index of the item behind the call in progress, if this chunk has one."""
        assert self._progress is not None
        item, items = self._stretch
        call, head = max(items, self._progress.call), held.head
        if item is None or not head.start <= item < head.start + head.count - call:
            return None
        return item + call

    def _on_jam(self) -> None:
        """Hand back the chunks that the worker has not begun: other cores may be idle.

        The chunk in progress is not as short as it was expected to be.
        """
        assert self._progress is not None
        begun = self._progress.skip(self._last)
        revoked = []
        for entry in list(self._chunks)[1:]:
            if entry.number > begun and not entry.revoked:
                entry.revoked = True
                revoked.append(entry)
        if revoked:
            self._owner.hand_back(revoked)

    def _cancel_watches(self, *, jam: bool = True) -> None:
        while self._watches:
            self._watches.pop().cancel()
        if jam and self._jam is not None:
            self._jam.cancel()
            self._jam = None
