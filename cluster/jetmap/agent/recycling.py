"""Replacing a worker that has served long enough: by one that is warm before it goes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from jetmap.backoff import Backoff
from jetmap.wire.messages import StartFailed

from .options import AgentOptions
from .worker_process import StartError, WorkerProcess

# Seconds before a worker that could not start is started again: the first time, and at most.
RESTART_PAUSES = (0.5, 30.0)


class Recycling:
    """start: starts a worker. failed: told when a successor could not start; the old worker stays,
    and after a pause that grows there is another attempt."""

    def __init__(
        self,
        options: AgentOptions,
        start: Callable[[], Awaitable[WorkerProcess]],
        failed: Callable[[StartFailed], Awaitable[None]],
    ) -> None:
        self._options = options
        self._start = start
        self._failed = failed
        self._successor: WorkerProcess | None = None
        self._turn = 0  # Of successors; one that is started for an earlier turn is not wanted.
        self._starting = False
        self._backoff = Backoff(*RESTART_PAUSES)
        self._not_before = 0.0

    @property
    def is_warm(self) -> bool:
        """Whether there is a successor that has said that it is ready."""
        return self._successor is not None and self._successor.is_warm

    def has_served(self, chunks: int) -> bool:
        """Whether a worker has ended as many chunks as it shall."""
        limit = self._options.recycle_chunks
        return limit is not None and chunks >= limit

    def is_spent(self, worker: WorkerProcess, chunks: int, born: float) -> bool:
        """Whether a worker has served long enough."""
        age, size = self._options.recycle_age, self._options.recycle_memory
        if self.has_served(chunks) or (age is not None and time.monotonic() - born >= age):
            return True
        return size is not None and worker.memory() >= size

    async def look(self, is_spent: Callable[[], bool]) -> None:
        """Starts a successor if the worker is spent; gives up one that could not start."""
        successor = self._successor
        if successor is not None:
            if successor.has_failed:
                self._successor = None
                await self._give_up(await successor.failure())
                await successor.end()
            return
        if self._starting or time.monotonic() < self._not_before or not is_spent():
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

    def take(self) -> WorkerProcess | None:
        """The successor, if there is one that may serve; it is the caller's from now on."""
        if self._successor is None or self._successor.has_failed:
            return None
        if self.is_warm:
            self._backoff.reset()
            self._not_before = 0.0
        self._turn += 1
        successor, self._successor = self._successor, None
        return successor

    async def drop(self) -> None:
        """Ends the successor, as when it has imported what has changed since."""
        self._turn += 1
        self._backoff.reset()
        self._not_before = 0.0
        successor, self._successor = self._successor, None
        if successor is not None:
            await successor.end()

    async def _give_up(self, failure: StartFailed) -> None:
        self._not_before = time.monotonic() + self._backoff.grow()
        await self._failed(failure)
