"""Replace workers that have served long enough, by successors that are warm before they go."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from jetmap.supervision import Backoff
from jetmap.wire.worker_start import StartFailed

from .options import AgentOptions
from .worker_process import StartError, WorkerProcess

# Seconds before a worker that could not start is started again: the first time, and at most.
RESTART_PAUSES = (0.5, 30.0)


class Recycling:
    """The successor of one slot's worker.

    When a successor cannot start, the old worker stays, and another attempt follows after a pause
    that grows.

    Args:
        start: Starts a worker.
        on_failure: Called when a successor could not start.
    """

    def __init__(
        self,
        options: AgentOptions,
        start: Callable[[], Awaitable[WorkerProcess]],
        on_failure: Callable[[StartFailed], Awaitable[None]],
    ) -> None:
        self._options = options
        self._start = start
        self._on_failure = on_failure
        self._successor: WorkerProcess | None = None
        self._born = time.monotonic()  # Time at which the worker's turn began.
        self._turn = 0  # Number of the current turn; a successor of an earlier turn is not wanted.
        self._starting = False
        self._backoff = Backoff(*RESTART_PAUSES)
        self._not_before = 0.0

    @classmethod
    def wanted(
        cls,
        options: AgentOptions,
        start: Callable[[], Awaitable[WorkerProcess]],
        on_failure: Callable[[StartFailed], Awaitable[None]],
    ) -> Recycling | None:
        """Return the recycling of a slot, or None if the settings set no limit."""
        workers = options.workers
        if workers.recycle_chunks is workers.recycle_age is workers.recycle_memory is None:
            return None
        return cls(options, start, on_failure)

    @property
    def is_warm(self) -> bool:
        """Return whether there is a successor that is ready."""
        return self._successor is not None and self._successor.is_warm

    def has_served(self, chunks: int) -> bool:
        """Return whether a worker has ended as many chunks as it may."""
        limit = self._options.workers.recycle_chunks
        return limit is not None and chunks >= limit

    async def check(self, worker: WorkerProcess | None, chunks: int) -> None:
        """Start a successor if the worker is spent; give up one that could not start.

        Args:
            worker: The worker, if it is ready.
            chunks: The chunks that it has ended.
        """
        successor = self._successor
        if successor is not None:
            if successor.has_failed:
                self._successor = None
                await self._give_up(await successor.failure())
                await successor.end()
            return
        if self._starting or time.monotonic() < self._not_before:
            return
        if worker is None or not self._is_spent(worker, chunks):
            return
        self._starting, turn = True, self._turn
        try:
            successor = await self._start()
        except StartError as error:
            await self._give_up(error.failure)
            return
        finally:
            self._starting = False
        if turn == self._turn:
            self._successor = successor
        else:
            await successor.end()

    def begin(self) -> WorkerProcess | None:
        """Begin a worker's turn. Returns the successor if it may serve; the caller then owns it."""
        self._born = time.monotonic()
        if self._successor is None or self._successor.has_failed:
            return None
        if self.is_warm:
            self._backoff.reset()
            self._not_before = 0.0
        self._turn += 1
        successor, self._successor = self._successor, None
        return successor

    async def drop(self) -> None:
        """End the successor, for example because its source has changed."""
        self._turn += 1
        self._backoff.reset()
        self._not_before = 0.0
        successor, self._successor = self._successor, None
        if successor is not None:
            await successor.end()

    def _is_spent(self, worker: WorkerProcess, chunks: int) -> bool:
        """Return whether a worker has served long enough."""
        age, size = self._options.workers.recycle_age, self._options.workers.recycle_memory
        if self.has_served(chunks) or (age is not None and time.monotonic() - self._born >= age):
            return True
        return size is not None and worker.memory() >= size

    async def _give_up(self, failure: StartFailed) -> None:
        self._not_before = time.monotonic() + self._backoff.grow()
        await self._on_failure(failure)
