"""Gather the chunks of batches while a core is idle for them, and begin the batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from jetmap.background import Background
from jetmap.wire.messages import EMPTY_BYTES, ArrivedHead

from .batches import ChunkBatch, Gathering
from .fetching import Fetching
from .holdings import HeldChunk
from .intake import Intake
from .prefetching import Prefetching
from .slot import Slot


class WaitingBatches:
    """The batches of an agent that have not begun.

    A batch that waits for more items has an idle core, which goes on pulling. If that core is gone,
    its chunks are given back: an idle one elsewhere may take them.

    Args:
        gathering: Decides what is computed together.
        give_back: Reports that chunks were not begun.
        on_core_lost: Called when a core is no longer idle.

    Attributes:
        is_used: Whether a batch ever came.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        background: Background,
        gathering: Gathering[HeldChunk],
        intake: Intake,
        fetching: Fetching,
        prefetching: Prefetching,
        give_back: Callable[[list[HeldChunk]], Awaitable[None]],
        on_core_lost: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._background = background
        self._gathering = gathering
        self._intake = intake
        self._fetching = fetching
        self._prefetching = prefetching
        self._give_back = give_back
        self._on_core_lost = on_core_lost
        self._timer: asyncio.TimerHandle | None = None
        self.is_used = False

    @property
    def has_ready(self) -> bool:
        """Return whether a batch waits for a core."""
        return self._gathering.has_ready

    @property
    def leaves_a_core(self) -> bool:
        """Return whether a core is idle beside those for which batches wait."""
        return sum(slot.is_idle for slot in self._slots) > self._gathering.open

    async def add(self, chunks: list[HeldChunk]) -> None:
        """Gather chunks that came in one message, for which a core is idle."""
        self.is_used, now = True, time.monotonic()
        for held in chunks:
            assert held.batch is not None
            # Items come with all of a batch's chunks or none.
            key = held.shares, bool(held.items), held.refusal
            self._gathering.add(key, held, held.batch.size, held.batch.linger, now)
        await self._run(is_promised=True)

    def compute_again(self, batches: list[ChunkBatch[HeldChunk]]) -> None:
        """Go on with what is left of batches whose worker died, before all others."""
        self._background.spawn(self._compute_again(batches), "compute a batch again")

    async def _compute_again(self, batches: list[ChunkBatch[HeldChunk]]) -> None:
        for batch in batches:
            if any(map(self._fetching.is_needed, batch.chunks)):
                # Its dispatcher has fewer items by now. (Such a chunk is alone in its batch.)
                if batch.chunks[0].handed_on:
                    await self._give_back(batch.chunks)
                    batch.chunks = []
                    continue
                await self._fetching.fetch(batch.chunks)
            batch.drop_unwanted()
        again = [batch for batch in batches if batch.chunks]
        if self._intake.stopped:
            await self._give_back([held for batch in again for held in batch.chunks])
        else:
            self.is_used = True
            self._gathering.add_again(again)
            await self._run()

    async def make_way(self) -> None:
        """Begin the oldest batch with the items that it has."""
        self._gathering.hurry()
        await self._run()

    async def on_core_freed(self) -> None:
        """Begin a batch on a core that has come free."""
        await self._run(is_promised=True)

    async def clear(self) -> None:
        """Give everything back."""
        if chunks := self._gathering.clear():
            await self._give_back(chunks)

    async def check(self) -> None:
        """Give everything back if no worker can start."""
        if self.has_ready and all(slot.state[0] == "failed" for slot in self._slots):
            await self.clear()

    async def _run(self, *, is_promised: bool = False) -> None:
        """Begin the batches that are ready, as far as cores are idle for them.

        is_promised: whether the intake counts one core less as idle already.
        """
        gathering = self._gathering
        while gathering.has_ready and (slot := self._idle()) is not None:
            batch = gathering.take()
            assert batch is not None
            if not is_promised:
                self._on_core_lost()
            is_promised = False
            # One chunk has a budget, as any other has, until it is split.
            is_one = len(batch.chunks) == 1 and not batch.is_split
            slot.assign(batch.chunks, None if is_one else batch)
            if self._prefetching.is_far:
                self._prefetching.on_assigned(slot, batch.chunks)
        if self._idle() is None and (chunks := gathering.take_unsplit()):
            await self._give_back(chunks)
        self._set_timer()
        if is_promised:
            await self._intake.on_core_freed()

    def _idle(self) -> Slot | None:
        return next((slot for slot in self._slots if slot.is_idle), None)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (due := self._gathering.due) is not None:
            delay = max(0.0, due - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_due, due)

    def _on_due(self, due: float) -> None:
        self._timer = None
        # A timer may fire a little early, by the resolution of its clock.
        self._gathering.on_time(max(due, time.monotonic()))
        self._background.spawn(self._run(), "begin a batch")


def shares_of(head: ArrivedHead) -> tuple[object, ...]:
    """Return a key that is equal for chunks whose items may share a call of their function."""
    has_kwargs, is_sealed = len(head.kwargs) > EMPTY_BYTES, len(head.seal) > EMPTY_BYTES
    is_format_alike = not has_kwargs and head.format != "pickle"
    return (
        head.function,
        bytes(head.ref),
        is_sealed,
        head.protocol,
        head.timeout,
        bytes(head.kwargs),
        "" if is_format_alike else head.format,
    )
