"""Time for the in-memory broker: the event loop's, or one that a test turns by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock that can call back. All times are seconds."""

    def now(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, at ``when`` or as soon as possible after it."""
        ...


class LoopClock:
    """The running event loop's own time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_at(when, callback)


class ManualClock:
    """A clock that stands still until ``advance`` turns it."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), callback))

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``, and make each call that falls due, at its own time."""
        until = self._now + seconds
        while self._due and self._due[0][0] <= until:
            when, _, callback = heapq.heappop(self._due)
            self._now = max(self._now, when)
            callback()
        self._now = until
