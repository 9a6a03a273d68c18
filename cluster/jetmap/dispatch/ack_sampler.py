"""Which publishes ask for the broker's word, and which are in doubt without it. No I/O."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

EVERY = 0.25  # Seconds between two publishes that ask, while all goes well.
WARY = 5.0  # Seconds after a refusal in which each publish asks.
KEPT = 2.0  # Seconds in which a publish that did not ask may come to be in doubt.
LATE = 60.0  # Seconds after which a word does not come any more.


class Words(Generic[T]):
    """The broker stores or refuses what is published, and says so if it is asked.

    Asking each time would wake the dispatcher once more for each chunk, for a word that is
    nearly always the same. So one publish in a while asks. With a refusal all that went out of
    late and did not ask are in doubt; in a stream that is full there is room now and then, so
    a good word about one says nothing of those before. Times are seconds of one monotonic
    clock, given by the caller.
    """

    def __init__(self) -> None:
        self._number = 0
        self._asked: dict[int, tuple[float, T]] = {}
        self._silent: dict[int, tuple[float, T]] = {}
        self._ask_from = self._wary_until = 0.0

    def published(self, what: T, now: float, *, ask: bool) -> int | None:
        """What goes out now. Returns the number under which it asks, or None. ask: in any case,
        as for what is sent again, because something became of the first try."""
        self._number += 1
        _forget(self._silent, now - KEPT)
        if not ask and self._wary_until <= now < self._ask_from:
            self._silent[self._number] = now, what
            return None
        self._ask_from = now + EVERY
        _forget(self._asked, now - LATE)
        self._asked[self._number] = now, what
        return self._number

    def stored(self, number: int) -> T | None:
        """The broker has taken that one. Returns what it was."""
        asked = self._asked.pop(number, None)
        return asked[1] if asked else None

    def refused(self, number: int, now: float) -> list[T]:
        """The broker has not taken that one. Returns what is to be sent again."""
        self._wary_until = now + WARY
        _forget(self._silent, now - KEPT)
        refused = self._asked.pop(number, None)
        again = [what for _, what in ([refused] if refused else []) + list(self._silent.values())]
        self._silent.clear()
        return again


def _forget(published: dict[int, tuple[float, T]], before: float) -> None:
    """What went out earlier; if it was lost, silence tells."""
    while published:
        number = next(iter(published))
        if published[number][0] >= before:
            return
        del published[number]
