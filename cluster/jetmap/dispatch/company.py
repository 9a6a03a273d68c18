"""Know whether other dispatchers use the pool, and tell them of this one. No I/O, no clock."""

from __future__ import annotations

SPEAK_SECONDS = 5.0  # Seconds between two notices of a dispatcher that has open maps, at least.
KEPT_SECONDS = 12.0  # Seconds for which a notice counts, so that one may be lost.
ENOUGH = 2  # Other dispatchers that were heard lately, with which this one need not speak.


class Company:
    """The other dispatchers that have open maps, as their notices say.

    A dispatcher speaks when it opens a map, and now and then while it has some. One that has heard
    of enough others stays silent: with two of them speaking, each dispatcher hears of another one,
    and a thousand cost no more than three do. (The suppression of Trickle, RFC 6206.)

    Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._spoke = float("-inf")

    def on_heard(self, dispatcher: str, now: float) -> bool:
        """Record a notice. Returns whether its sender is news; it may not know of this one then."""
        is_news = not self._is_kept(dispatcher, now)
        self._heard[dispatcher] = now
        if is_news:
            self._spoke = float("-inf")
        return is_news

    def is_alone(self, now: float) -> bool:
        """Return whether no other dispatcher has open maps, as far as known."""
        if self._heard:
            self._heard = {name: at for name, at in self._heard.items() if self._is_kept(name, now)}
        return not self._heard

    def must_speak(self, now: float) -> bool:
        """Return whether a dispatcher that has an open map must say so now; it counts as said."""
        if now - self._spoke < SPEAK_SECONDS:
            return False
        if sum(now - at < SPEAK_SECONDS for at in self._heard.values()) >= ENOUGH:
            return False
        self._spoke = now
        return True

    def _is_kept(self, dispatcher: str, now: float) -> bool:
        return now - self._heard.get(dispatcher, float("-inf")) < KEPT_SECONDS
