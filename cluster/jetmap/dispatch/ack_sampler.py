"""Choose the publishes that ask for an ack, and name those in doubt after a refusal. No I/O."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

EVERY = 0.25  # Seconds between two publishes that ask for an ack, while all goes well.
WARY = 5.0  # Seconds after a refusal during which each publish asks.
KEPT = 2.0  # Seconds before a refusal within which a publish that did not ask is in doubt.
LATE = 60.0  # Seconds after which an ack does not come any more.


class AckSampler(Generic[T]):
    """Ask the broker for an ack of some publishes only.

    The broker stores or refuses each message, and says so if asked. Asking each time would wake the
    dispatcher once more for each chunk, for an answer that is nearly always the same, so one
    publish in EVERY seconds asks. A refusal casts doubt on all recent publishes that did not ask.
    An ack does not clear earlier ones: a stream that is full has room now and then.

    All times are seconds of one monotonic clock, passed in by the caller.
    """

    def __init__(self) -> None:
        self._number = 0
        self._asked: dict[int, tuple[float, T]] = {}
        self._silent: dict[int, tuple[float, T]] = {}
        self._ask_from = self._wary_until = 0.0

    def sample(self, what: T, now: float, *, ask: bool) -> int | None:
        """Note a publish; return the number under which it asks for an ack, or None.

        ask: ask in any case, as for a second try: the first one may have met with a refusal.
        """
        self._number += 1
        if self._silent:
            _forget(self._silent, now - KEPT)
        if not ask and self._wary_until <= now < self._ask_from:
            self._silent[self._number] = now, what
            return None
        self._ask_from = now + EVERY
        _forget(self._asked, now - LATE)
        self._asked[self._number] = now, what
        return self._number

    def on_stored(self, number: int) -> T | None:
        """Return what was published under this number; the broker has stored it."""
        asked = self._asked.pop(number, None)
        return asked[1] if asked else None

    def on_refused(self, number: int, now: float) -> list[T]:
        """Return what to send again; the broker has refused the publish of this number."""
        self._wary_until = now + WARY
        _forget(self._silent, now - KEPT)
        refused = self._asked.pop(number, None)
        again = [what for _, what in ([refused] if refused else []) + list(self._silent.values())]
        self._silent.clear()
        return again


def _forget(published: dict[int, tuple[float, T]], before: float) -> None:
    """Forget what was published before this time; if it was lost, silence shows that."""
    while published:
        number = next(iter(published))
        if published[number][0] >= before:
            return
        del published[number]
