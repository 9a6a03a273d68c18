"""Keep one worker ready beside the cores where workers take long to load what they need."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from jetmap.machine import free_memory, memory, pin_process
from jetmap.supervision import Backoff
from jetmap.wire.worker_start import Loaded, Ready

from .worker_process import StartError, WorkerProcess

logger = logging.getLogger(__name__)

SLOW_SECONDS = 1.0  # Seconds of loading from which on a spare is worth its memory.
RESERVE = 0.1  # Part of the memory that stays free beside a spare.
PAUSES = (5.0, 300.0)  # Seconds before a spare that could not start is started again.


def has_room(size: int, free: int, whole: int) -> bool:
    """Return whether one more worker of ``size`` bytes fits into the ``free`` ones."""
    return free - size >= whole * RESERVE


class Spare:
    """The spare worker of an agent: it takes the place of one that was killed or has crashed.

    It is started once the cores are served, and pinned when it takes a place.

    Args:
        start: Starts a worker that is not pinned.
        wanted: Whether there may be a spare at all (setting ``warm_spare``).
        has_room: Whether there is memory for one more worker of a number of bytes.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[WorkerProcess]],
        *,
        wanted: bool = True,
        has_room: Callable[[int], bool] = lambda size: has_room(size, free_memory(), memory()),
    ) -> None:
        self._start = start
        self._wanted = wanted
        self._has_room = has_room
        self._slow: dict[str, float] = {}  # Seconds of each loader.
        self._worker: WorkerProcess | None = None
        self._turn = 0  # Number of the current spare; one of an earlier turn is not wanted.
        self._is_starting = False
        self._backoff = Backoff(*PAUSES)
        self._not_before = 0.0

    @property
    def is_wanted(self) -> bool:
        """Return whether loading takes long here."""
        return self._wanted and sum(self._slow.values()) >= SLOW_SECONDS

    @property
    def needs_checks(self) -> bool:
        """Return whether there is a spare, or there should be one."""
        return self._worker is not None or self.is_wanted

    def on_ready(self, loads: Ready | Loaded) -> None:
        """Record the seconds that loaders have taken in a worker."""
        self._slow |= loads.loads

    async def check(self, *, settled: bool, size: Callable[[], int]) -> None:
        """Start the spare, or give up one that could not start; call this once a second.

        Args:
            settled: Whether all cores have their workers.
            size: Returns the bytes of the largest worker.
        """
        if self._worker is not None:
            if self._worker.has_failed:
                worker, self._worker = self._worker, None
                failure = await worker.failure()
                await worker.end()
                self._give_up(failure.message)
            return
        if not self.is_wanted or not settled or self._is_starting:
            return
        if time.monotonic() < self._not_before or not self._has_room(size()):
            return
        self._is_starting, turn = True, self._turn
        try:
            worker = await self._start()
        except StartError as error:
            self._give_up(error.failure.message)
            return
        finally:
            self._is_starting = False
        if turn == self._turn:
            self._worker = worker
        else:
            await worker.end()

    def take(self, cpu: int | None) -> WorkerProcess | None:
        """Return the spare, on this core from now on, or None. The caller then owns it."""
        worker = self._worker
        if worker is None or worker.has_failed:
            return None
        self._worker = None
        if worker.is_warm:
            self._backoff.reset()
        pin_process(worker.pid, cpu)
        return worker

    async def drop(self) -> None:
        """End the spare: what it has loaded is old, or the agent ends."""
        self._turn += 1
        worker, self._worker = self._worker, None
        if worker is not None:
            if worker.is_warm:
                worker.dismiss()
                await worker.gone()
                worker.close()
            else:
                await worker.end()

    def forget(self) -> None:
        """Forget how long loading takes: the source has changed."""
        self._slow.clear()

    def _give_up(self, reason: str) -> None:
        pause = self._backoff.grow()
        self._not_before = time.monotonic() + pause
        logger.info("a spare worker cannot start, next try in %g s: %s", pause, reason)
