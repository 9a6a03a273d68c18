"""Decide when a core that computes asks for its next chunk already. No I/O, no clock.

Far from the broker, an idle core waits a whole round trip for its next chunk. So a core whose chunk
is about to end asks ahead. A chunk that comes too early waits for the first core of
this agent that comes free, for two round trips at most; then it is handed back, because a core
elsewhere may idle. Where no cores are elsewhere, nobody has to ask: what has come waits for as long
as it takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from .pulls import EXPRESS_RUN

FAR_SECONDS = 0.005  # Round trip from which on cores ask ahead.
# Round trips by which a core asks ahead: one for the chunk to come, and half of one because cores
# come free earlier than expected, or later.
AHEAD = 1.5
PATIENCE = 2.0  # Round trips that a chunk waits here for a core, at most.
SAMPLES = 3  # Latest measurements of the round trip; the shortest counts.
_RECENT = 0.5  # Weight of the latest chunk in what is known of a function.

S = TypeVar("S")  # A core.
W = TypeVar("W")  # Chunks that came for a core that computes.


class Prefetch(Generic[S, W]):
    """The cores that ask ahead, and the chunks that came too early.

    Args:
        is_standing: Whether all chunks come without being asked for: the pool has no other agent.

    Attributes:
        round_trip: Seconds to the broker and back; 0 while it is near, where nobody asks ahead.
        ahead: Cores that have asked, and compute.
    """

    def __init__(self, *, is_standing: bool = False) -> None:
        self.is_standing = is_standing
        self.round_trip = 0.0
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._each: dict[str, float] = {}
        self.ahead: dict[S, None] = {}
        self._first: list[W] = []  # Chunks that go before all others that wait,
        self._others: list[W] = []
        self._run = 0  # and those of them that went in a row.

    @property
    def waiting(self) -> list[W]:
        """The chunks that came too early, in the order in which they would go."""
        return self._first + self._others

    def on_measured(self, seconds: float) -> None:
        """Record a measurement of the round trip. A busy process measures too much."""
        self._samples.append(seconds)
        shortest = round(min(self._samples), 3)
        self.round_trip = shortest if shortest >= FAR_SECONDS else 0.0

    def on_computed(self, function: str, items: int, seconds: float) -> None:
        """Learn what an item takes here from a chunk."""
        if items > 0:
            each = seconds / items
            known = self._each.get(function, each)
            self._each[function] = known + _RECENT * (each - known)

    def delay(self, chunks: list[tuple[str, int]]) -> float | None:
        """Return the seconds from their beginning after which to ask for the next chunk.

        chunks: function and number of items of each. None: their duration is not known.
        """
        expected = 0.0
        for function, items in chunks:
            each = self._each.get(function)
            if each is None:
                return None
            expected += each * items
        return max(0.0, expected - AHEAD * self.round_trip)

    def ask(self, core: S) -> bool:
        """Let a busy core ask ahead; return whether it is to pull, and has not done so."""
        if core in self.ahead:
            return False
        self.ahead[core] = None
        return True

    @property
    def is_ahead(self) -> bool:
        """Return whether a busy core has asked, so that a chunk may wait for it."""
        return self.is_standing or len(self.ahead) > len(self._first) + len(self._others)

    def wait(self, chunks: W, *, first: bool = False) -> None:
        """Keep chunks that came before a core is free.

        first: they go before others that wait; a long run of them leaves those a share.
        """
        (self._first if first else self._others).append(chunks)

    def on_freed(self, core: S) -> tuple[W | None, bool]:
        """Return the chunks that wait for a core that has come free, and whether to pull.

        A core that had asked ahead needs no further pull; one that takes the chunk for which
        another had asked leaves it the next.
        """
        had_asked = core in self.ahead
        self.ahead.pop(core, None)
        return self.take(), not had_asked

    def take(self) -> W | None:
        """Return the chunks whose turn it is, which wait no longer."""
        if self._first and not (self._others and self._run >= EXPRESS_RUN):
            self._run += 1
            return self._first.pop(0)
        self._run = 0
        return self._others.pop(0) if self._others else None

    def drop(self, is_unwanted: Callable[[W], bool]) -> None:
        """Stop keeping chunks that nobody wants any more."""
        for kept in (self._first, self._others):
            kept[:] = [chunks for chunks in kept if not is_unwanted(chunks)]

    def give_back(self, chunks: W) -> bool:
        """Stop keeping chunks; return whether they still waited. A core that asked asks no more."""
        kept = self._first if chunks in self._first else self._others
        if chunks not in kept:
            return False
        kept.remove(chunks)
        if self.ahead:
            del self.ahead[next(iter(self.ahead))]
        return True

    def clear(self) -> list[W]:
        """Stop keeping chunks for cores, and return them."""
        waiting = self.waiting
        self._first, self._others = [], []
        self.ahead.clear()
        return waiting
