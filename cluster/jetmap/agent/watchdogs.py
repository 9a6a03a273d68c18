"""Watches over what a worker is in: an item that takes too long, a chunk that others wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from jetmap.worker.progress import Progress

# Small chunks travel together because each takes a moment (five milliseconds, all of them).
JAM_SECONDS = 0.05
AGAIN_SECONDS = 0.005  # At least, from one look at a chunk's budget to the next.
LOOK_SECONDS = 0.5  # At most, from one look at an item to the next.
FROZEN_SECONDS = 0.5  # By which a look is late if this process was frozen.


class _Watch:
    """Looks again and again, until it is cancelled."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        seconds = self._seconds_left()
        if seconds > 0:
            self._timer = self._loop.call_later(seconds, self._look)

    def _seconds_left(self) -> float:
        """Seconds until the next look; 0: none."""
        raise NotImplementedError


class Deadline(_Watch):
    """passed: called when an item of the worker's chunk ``number`` computes for longer than
    ``timeout`` seconds, with its index and whether it was the function's first in the worker;
    that one may take ``allowance`` seconds more, which is asked at each look.

    While this process was frozen, its worker may have been so too, as where a container is
    paused: that time is not the item's.
    """

    def __init__(
        self,
        progress: Progress,
        number: int,
        timeout: float,
        passed: Callable[[int, bool], None],
        allowance: Callable[[], float] = float,
    ) -> None:
        self._progress = progress
        self._number = number
        self._timeout = timeout
        self._passed = passed
        self._allowance = allowance
        self._looked = time.monotonic()
        self._started = 0  # Of the item that was in progress at the last look.
        self._frozen = 0.0  # Seconds of it.
        super().__init__(min(timeout, LOOK_SECONDS))

    def _seconds_left(self) -> float:
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        cold = self._progress.is_cold
        item, started = self._progress.item, self._progress.started_ns
        # The worker may be in its next chunk already, and the end of this one in the pipe.
        if item is None or not started or self._progress.begun != self._number:
            return min(self._timeout, LOOK_SECONDS)
        if started != self._started:
            self._started, self._frozen = started, 0.0
        age = now - started / 1e9
        if gap > LOOK_SECONDS + FROZEN_SECONDS:
            self._frozen = min(self._frozen + gap, age)
        most = self._timeout + self._allowance() if cold else self._timeout
        left = most - (age - self._frozen)
        if left > 0:
            return min(max(0.01, left), LOOK_SECONDS)
        self._passed(item, cold)
        return 0


class Overrun(_Watch):
    """spent: called once when the worker may begin no further item of its chunk ``number`` and is
    still in one. start: the index of the chunk's first item. budget: seconds it has at least.

    The worker itself gives items back only between two of them.
    """

    def __init__(
        self,
        progress: Progress,
        number: int,
        start: int,
        budget: float,
        spent: Callable[[], None],
    ) -> None:
        self._progress = progress
        self._number = number
        self._start = start
        self._spent = spent
        super().__init__(max(AGAIN_SECONDS, budget))

    def _seconds_left(self) -> float:
        begun, item = self._progress.begun, self._progress.item
        if begun > self._number:
            return 0  # The worker's word that it has ended this one is on its way.
        due = 0.0 if item is None else self._progress.due(item - self._start)
        if begun < self._number or not due:
            return AGAIN_SECONDS  # It is still decoded, or its function imported.
        if (left := due - time.monotonic()) > 0:
            return max(AGAIN_SECONDS, left)
        self._spent()
        return 0


class Jam(_Watch):
    """jammed: called once when the worker has been in one chunk for ``JAM_SECONDS``, at most
    twice that. number: of the chunk that it begins now."""

    def __init__(self, progress: Progress, number: int, jammed: Callable[[], None]) -> None:
        self._progress = progress
        self._begun = number
        self._jammed = jammed
        super().__init__(JAM_SECONDS)

    def _seconds_left(self) -> float:
        begun, self._begun = self._begun, self._progress.begun
        if begun != self._begun:
            return JAM_SECONDS
        self._jammed()
        return 0
