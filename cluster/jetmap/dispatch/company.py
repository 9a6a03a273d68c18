"""Know whether other dispatchers use the pool, and tell them of this one. No I/O, no clock."""

from __future__ import annotations

SPEAK_SECONDS = 5.0  # Seconds between two notices of a dispatcher that has open maps, at least.
KEPT_SECONDS = 12.0  # Seconds for which a notice counts, so that one may be lost.
ENOUGH = 2  # Other dispatchers that were heard lately, with which this one need not speak.


class Company:
    """The other dispatchers that have open maps, as their notices say.

    A dispatcher speaks when it opens a map, and now and then while it has some. One that has heard
    of enough others stays silent: with two of them speaking, each dispatcher hears of another one,
    and a thousand cost no more than three do. (The suppression of Trickle, RFC 6206.) A newcomer
    has heard nobody: of those that spoke lately, the first ones by name answer it.

    Times are seconds of one monotonic clock.

    Args:
        me: The dispatcher's name.
    """

    def __init__(self, me: str) -> None:
        self._me = me
        self._heard: dict[str, float] = {}
        self._spoke = float("-inf")
        self._silent_until = float("-inf")
        self._must_answer = False

    def on_heard(self, dispatcher: str, now: float) -> bool:
        """Record a notice. Returns whether its sender is news; it may not know of this one then."""
        is_news = not self._is_kept(dispatcher, now)
        if is_news:
            self._silent_until = float("-inf")
            if now - self._spoke < KEPT_SECONDS and self._is_among_first(now):
                self._must_answer = True
        self._heard[dispatcher] = now
        return is_news

    def is_alone(self, now: float) -> bool:
        """Return whether no other dispatcher has open maps, as far as known."""
        if self._heard:
            self._heard = {name: at for name, at in self._heard.items() if self._is_kept(name, now)}
        return not self._heard

    def must_speak(self, now: float) -> bool:
        """Return whether a dispatcher that has an open map must say so now; it counts as said."""
        if now < self._silent_until:
            return False
        if not self._must_answer:
            latest = sorted(self._heard.values())[-ENOUGH:]
            if len(latest) == ENOUGH and now - latest[0] < SPEAK_SECONDS:
                self._silent_until = latest[0] + SPEAK_SECONDS
                return False
        self._must_answer = False
        self._spoke, self._silent_until = now, now + SPEAK_SECONDS
        return True

    def _is_among_first(self, now: float) -> bool:
        """Return whether few of those that spoke lately come before this one by name."""
        before = [name for name in self._heard if name < self._me and self._is_kept(name, now)]
        return len(before) < ENOUGH

    def _is_kept(self, dispatcher: str, now: float) -> bool:
        return now - self._heard.get(dispatcher, float("-inf")) < KEPT_SECONDS
