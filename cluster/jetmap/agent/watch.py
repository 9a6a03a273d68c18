"""Watches over what a worker is in: an item that takes too long, a chunk that others wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from jetmap.worker.progress import Progress

# Small chunks travel together because each takes a moment (five milliseconds, all of them).
JAM_SECONDS = 0.05


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
    ``timeout`` seconds, with its index."""

    def __init__(
        self, progress: Progress, number: int, timeout: float, passed: Callable[[int], None]
    ) -> None:
        self._progress = progress
        self._number = number
        self._timeout = timeout
        self._passed = passed
        super().__init__(timeout)

    def _seconds_left(self) -> float:
        item, started = self._progress.item, self._progress.started_ns
        # The worker may be in its next chunk already, and the end of this one in the pipe.
        if item is None or not started or self._progress.begun != self._number:
            return self._timeout
        left = self._timeout - (time.monotonic_ns() - started) / 1e9
        if left > 0:
            return max(0.01, left)
        self._passed(item)
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
