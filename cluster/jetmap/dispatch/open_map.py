"""An open map: its account for the scheduler, and its outcomes for the reader.

The scheduler asks what could be sent next; the dispatcher delivers outcomes; the caller iterates
over them, in batches, until the end or an error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self, cast

import msgspec

from jetmap.wire.messages import PART_BYTES, Report

from .costs import Cost, Pace
from .flight import Flight
from .ledger import Ledger
from .map_spec import MapSpec
from .memory import Memory
from .outcomes import Batch, Reorder
from .profile import Profile
from .rounds import Rounds
from .sources import Source, TwoEnded

if TYPE_CHECKING:
    from jetmap.tracing import MapSpan

    from .gate import Gate

MANY = 1 << 20  # Chunks of a map whose length is not known.


class OpenMap:
    """Iterate over a map for its outcomes; each item is in exactly one batch.

    Leaving its ``async with`` before the end withdraws the map. Iteration raises MapTimeout,
    the source's own error, or the error that ended the cluster.

    Args:
        max_buffer: Bytes of unread results with which no further chunk is sent.
        memory: Account of all maps of this process; while it is full, a map is sent more only as
            its results are read.
        room: Bytes of items that a message of the broker takes beside what each chunk carries.
        large: Bytes of items above which they may be elsewhere than in their message.
        on_leave: Called when the reader leaves before the end.
        on_room: Called when the reader has made room for more results.
    """

    # (With more than thirty attributes, each map would have a dictionary of its own.)
    __slots__ = (
        "__weakref__", "_batches", "_error", "_on_leave", "_on_room", "_reorder", "_waiter",
        "buffered", "cost", "ended", "express_chunks", "express_seconds", "gate", "id", "inline",
        "is_large", "large", "ledger", "limit", "max_buffer", "max_parallel", "memory", "next_try",
        "opened", "overhead", "pace", "profile", "queues", "room", "rounds", "source", "span",
        "spec", "stalled", "stopped", "stored_bytes", "taken", "taken_last", "timer", "two_ended",
    )  # fmt: skip

    def __init__(
        self,
        id: str,
        spec: MapSpec,
        source: Source,
        ledger: Ledger,
        cost: Cost,
        *,
        memory: Memory,
        max_buffer: int,
        room: int = 1 << 20,
        large: int = PART_BYTES,
        on_leave: Callable[[OpenMap], Awaitable[None]] | None = None,
        on_room: Callable[[], None] | None = None,
    ) -> None:
        self.id = id
        self.spec = spec
        self.overhead = spec.overhead
        self.source = source
        self.ledger = ledger
        self.cost = cost
        self.pace = Pace(cost)
        self.rounds = Rounds()
        self.memory = memory
        self.max_buffer = max_buffer
        self.room = room
        self.inline = min(room, PART_BYTES)  # Bytes of items above which they travel in parts.
        self.large = min(self.inline, large)
        self.is_large = False  # The last chunk that was cut was a large item.
        self.queues: set[str] = set()  # Queues that its chunks were sent to.
        self.taken = 0  # Index behind the last item taken from the source in order.
        self.taken_last = 0  # Items taken from its end.
        # The source, as long as its last items may be sent early.
        self.two_ended: TwoEnded | None = None
        if spec.whole and spec.batch is None and hasattr(source, "take_last"):
            self.two_ended = cast("TwoEnded", source)
        self.buffered = 0  # Bytes of unread results.
        self.stored_bytes = 0  # Bytes of a job's values that agents have stored.
        self.express_seconds = 0.0
        self.express_chunks = 0
        self.stopped = False  # Nothing new is sent; chunks that are out go on.
        self.stalled = False  # Only unread results keep the next chunk back.
        self.ended = False
        self.span: MapSpan | None = None  # If it is traced.
        # Chunks that may be out at once; 0: the map is paused.
        self.limit: int | None = spec.max_parallel
        self.max_parallel = spec.max_parallel  # The limit when it is not paused.
        self.gate: Gate | None = None  # If its function or the pool is paused or limited.
        self.opened = 0.0  # Time of its start.
        self.profile: Profile | None = None  # From its second chunk on.
        self.timer: asyncio.TimerHandle | None = None
        self.next_try: asyncio.TimerHandle | None = None  # Runs while items wait for their time.
        self._reorder = Reorder() if spec.ordered else None
        self._on_leave = on_leave
        self._on_room = on_room
        self._batches: deque[Batch] = deque()
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    # For the scheduler

    @property
    def total(self) -> int | None:
        """Number of items, once it is known."""
        return self.source.total

    @property
    def done(self) -> int:
        """Number of items that have their outcome."""
        return self.ledger.done

    @property
    def rest(self) -> int | None:
        """Number of items that are still to be sent, or sent again; None: not known yet."""
        remaining = self.source.remaining
        return None if remaining is None else remaining + self.ledger.returned_items

    @property
    def has_work(self) -> bool:
        """Return whether a chunk could be sent now, as far as this map is concerned."""
        return self.ledger.has_pieces or (self._has_new_items and self.has_room)

    def take_turn(self) -> bool:
        """Return whether a chunk could be sent now; if not, note a map that its reader stalls.

        A stalled map calls ``on_room`` once its reader has made room.
        """
        if self.limit is not None and len(self.ledger.flights) >= self.limit:
            return False
        if self.gate is not None and not self.gate.is_open:
            return False
        if self.ledger.has_pieces:
            return True
        if not self._has_new_items:
            return False
        self.stalled = not self.has_room
        return not self.stalled

    @property
    def _has_new_items(self) -> bool:
        return not self.stopped and self.source.has_items

    @property
    def is_sent(self) -> bool:
        """Return whether each item has been taken, and none waits to be sent again."""
        total = self.source.total
        if total is None or self.ledger.has_returned:
            return False
        return self.taken + self.taken_last >= total

    @property
    def has_room(self) -> bool:
        """Return whether more results may come before those that are there are read."""
        if self.memory.is_full and (self.buffered or self.ledger.flights):
            return False
        return self.buffered < self.max_buffer

    @property
    def is_far_ahead(self) -> bool:
        """Return whether what is out may leave twice the bytes unread that its reader may."""
        out = (self.taken + self.taken_last - self.ledger.done) * self.cost.value_bytes
        return self.buffered + out >= 2 * self.max_buffer

    @property
    def is_complete(self) -> bool:
        """Return whether each item has its outcome.

        ``taken`` says nothing here: a job that goes on may have the outcomes of its last items
        already, and those are never taken.
        """
        total = self.source.total
        return not self.source.has_items and total is not None and self.ledger.done >= total

    def backlog_items(self, *, has_workers: bool) -> int:
        """Number of items that wait to be computed; without workers, also those that were sent.

        A source that does not know its length counts as one item while it has some.
        """
        remaining = self.source.remaining
        waiting = int(self.source.has_items) if remaining is None else remaining
        waiting += self.ledger.returned_items + self.ledger.waiting_items
        if not has_workers:
            waiting += sum(flight.piece.count for flight in self.ledger.flights.values())
        return waiting

    @property
    def useful_chunks(self) -> int:
        """Most chunks that it could have out; one for each item, as their size is not known."""
        out, rest = len(self.ledger.flights), self.rest
        if rest is None:
            rest = MANY if self.source.has_items else self.ledger.returned_items
        return out + rest if self.limit is None else max(out, min(out + rest, self.limit))

    # For the dispatcher

    def learn(self, report: Report, flight: Flight | None) -> None:
        """Learn from a report what items cost. flight: its chunk, if that is still out."""
        size = report.size or len(report.values)
        self.cost.learn(report.count, report.seconds, size)
        if report.count == self.source.total:
            return  # Nothing of this map is left to be cut.
        self.pace.learn(report.count, report.seconds)
        final = report.final
        if report.rest is not None and flight is not None:
            self.pace.refute(report.rest.start - flight.piece.start, report.rest.seconds)
        elif final is not None and flight is not None:
            if flight.is_late or (final.end < flight.end and final.crash is None):
                if not flight.is_hurried:
                    self.pace.refute(report.count, report.seconds)
            else:
                self.pace.is_sure = True

    def deliver(self, batches: list[Batch]) -> None:
        """Queue new outcomes for the reader."""
        for batch in batches:
            size = batch.size
            self.buffered += size
            self.memory.add_unread(size)
            self._batches.extend(self._reorder.add(batch) if self._reorder else (batch,))
        if self._batches:
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """End the iteration behind the outcomes delivered so far. Only the first call counts."""
        if self.ended:
            return
        self.ended = True
        self._error = error
        if self.span is not None:
            self.span.end(error, self.done, failed=bool(self.ledger.failed))
        if self.timer is not None:
            self.timer.cancel()
        if self.next_try is not None:
            self.next_try.cancel()
        self._wake()

    # Steering

    @property
    def is_paused(self) -> bool:
        return self.limit == 0

    @property
    def is_held(self) -> bool:
        """Return whether it, its function or the pool is paused."""
        return self.limit == 0 or (self.gate is not None and self.gate.is_paused)

    def pause(self) -> None:
        """Send nothing more until ``resume``; chunks that are out go on."""
        self.limit = 0

    def resume(self) -> None:
        self.limit = self.max_parallel

    def restrict(self, chunks: int | None) -> None:
        """Let at most this many chunks be out at once; None: any number."""
        self.max_parallel = chunks
        if not self.is_paused:
            self.limit = chunks

    def relabel(self, labels: dict[str, str]) -> None:
        """Give the map other names and values by which people find it."""
        if labels != (self.spec.labels or {}):
            self.spec = msgspec.structs.replace(self.spec, labels=labels)

    # For the reader

    def stop(self, before: int = 0) -> None:
        """Take no more items from the source.

        Those taken so far still get their outcomes; then the iteration ends.

        before: index of an item; while items before it are still to be taken, nothing happens.
        """
        if self.taken >= before:
            self.stopped = True
            self._wake()

    async def collect(
        self, *, stop_at_error: bool, on_batch: Callable[[Batch], object] | None = None
    ) -> list[Batch]:
        """Read every batch and return them in input order.

        Args:
            stop_at_error: Wait for nothing behind the first item, in input order, that failed: the
                caller sees the error that a loop over the items would have met.
            on_batch: Called with each batch as it arrives.
        """
        batches: list[Batch] = []
        first: int | None = None
        async for batch in self:
            batches.append(batch)
            if on_batch is not None:
                on_batch(batch)
            if batch.errors and stop_at_error:
                index = batch.errors[0].index
                first = index if first is None else min(first, index)
                self.stop(first)
            if first is not None and self.ledger.is_done_before(first):
                break
        batches += self._batches
        batches.sort(key=lambda batch: batch.start)
        return batches

    async def aclose(self) -> None:
        """Withdraw what is not done, and drop what is not read. A second call does nothing."""
        try:
            if not self.ended and self._on_leave is not None:
                await self._on_leave(self)
        finally:
            self._drop()

    def __del__(self) -> None:
        self._drop()

    def _drop(self) -> None:
        if self.buffered:
            self._batches.clear()
            self.memory.read(self.buffered)
            self.buffered = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while not self._batches:
            if self.ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self.stopped and self.done >= self.taken + self.taken_last:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        batch = self._batches.popleft()
        size = batch.size
        self.buffered -= size
        self.memory.read(size)
        if self.stalled and self.has_room:
            self.stalled = False
            if self._on_room is not None:
                self._on_room()
        return batch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
