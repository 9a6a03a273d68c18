"""Which publishes ask for the broker's word, and which are in doubt without it. No I/O."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

EVERY = 0.25  # Seconds between two publishes that ask, while all goes well.
WARY = 5.0  # Seconds after a refusal in which each publish asks.


class Words(Generic[T]):
    """The broker stores or refuses what is published, and says so if it is asked.

    Asking each time would wake the dispatcher once more for each chunk, for a word that is
    nearly always the same. So one publish in a while asks, and its word, as the broker takes
    them in order, is one on all before it. With a refusal all that did not ask are in doubt.
    Times are seconds of one monotonic clock, given by the caller.
    """

    def __init__(self) -> None:
        self._number = 0
        self._open: dict[int, T] = {}  # In the order of publishing.
        self._asked: set[int] = set()
        self._ask_from = self._wary_until = 0.0

    def published(self, what: T, now: float, *, ask: bool) -> int | None:
        """What goes out now. Returns the number under which it asks, or None. ask: in any case,
        as for what is sent again, because something became of the first try."""
        self._number += 1
        self._open[self._number] = what
        if not ask and self._wary_until <= now < self._ask_from:
            return None
        self._ask_from = now + EVERY
        self._asked.add(self._number)
        return self._number

    def stored(self, number: int) -> None:
        """The broker has taken that one, and so what went before it."""
        for earlier in list(self._open):
            if earlier > number:
                break
            del self._open[earlier]
            self._asked.discard(earlier)

    def refused(self, number: int, now: float) -> list[T]:
        """The broker has not taken that one. Returns what is to be sent again."""
        self._wary_until = now + WARY
        again = [n for n in self._open if n == number or n not in self._asked]
        self._asked.discard(number)
        return [self._open.pop(n) for n in again]
