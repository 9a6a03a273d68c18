"""An open map as its caller holds it: batches of outcomes, until the end or an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from .mapstate import MapState
from .outcomes import Batch
from .reorder import Reorder


class MapRun:
    """Iterate over it for the outcomes; each item is in exactly one batch.

    Leaving its ``async with`` before the end withdraws the map. Iteration raises MapTimeout,
    the source's own error, or what ended the cluster.
    """

    def __init__(
        self,
        state: MapState,
        *,
        ordered: bool,
        withdraw: Callable[[MapRun], Awaitable[None]],
        read: Callable[[], None],
    ) -> None:
        self.id = state.id
        self.state = state
        self.ended = False
        self.timer: asyncio.TimerHandle | None = None
        self.hopeless_since: float | None = None
        # Of a job: tells which items have their outcomes in the store.
        self.stored: Callable[[], Awaitable[list[tuple[int, int]]]] | None = None
        self.is_asking = False
        self._reorder = Reorder() if ordered else None
        self._withdraw = withdraw
        self._read = read
        self._batches: deque[Batch] = deque()
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def total(self) -> int | None:
        """How many items there are, once that is known."""
        return self.state.total

    @property
    def done(self) -> int:
        return self.state.ledger.done

    def stop(self) -> None:
        """Takes no more items. Those taken so far, which are the first of the input, still get
        their outcomes, and then the iteration ends."""
        self.state.stopped = True
        self._wake()

    async def collect(self, *, stop_at_error: bool) -> list[Batch]:
        """Every batch, sorted. stop_at_error: with the first item, in input order, that
        failed, nothing after it is waited for, so that the caller sees the error that a loop
        over the items would have met."""
        batches: list[Batch] = []
        first: int | None = None
        async for batch in self:
            batches.append(batch)
            if batch.errors and stop_at_error:
                index = batch.errors[0].index
                first = index if first is None else min(first, index)
                self.stop()
            if first is not None and self.state.ledger.is_done_before(first):
                break
        batches += self._batches
        batches.sort(key=lambda batch: batch.start)
        return batches

    def deliver(self, batches: list[Batch]) -> None:
        """From the dispatcher: new outcomes."""
        for batch in batches:
            self.state.buffered += batch.size
            self.state.memory.read(-batch.size)
            self._batches.extend(self._reorder.add(batch) if self._reorder else (batch,))
        if self._batches:
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """From the dispatcher: nothing more will come. Only the first call counts."""
        if self.ended:
            return
        self.ended = True
        self._error = error
        if self.timer is not None:
            self.timer.cancel()
        self._wake()

    async def aclose(self) -> None:
        """Withdraws what is not done yet, and forgets what is not read. Twice is harmless."""
        try:
            if not self.ended:
                await self._withdraw(self)
        finally:
            self._drop()

    def __del__(self) -> None:
        self._drop()

    def _drop(self) -> None:
        self._batches.clear()
        self.state.memory.read(self.state.buffered)
        self.state.buffered = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while not self._batches:
            if self.ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self.state.stopped and self.done >= self.state.taken:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        batch = self._batches.popleft()
        state = self.state
        state.buffered -= batch.size
        state.memory.read(batch.size)
        if state.stalled and state.has_room:
            state.stalled = False
            self._read()
        return batch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _wake(self) -> None:
        if self._waiter is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                self._waiter.set_result(None)
