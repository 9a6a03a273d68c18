"""The time that a function may take, at its first call in a worker, to load things. No clock."""

from __future__ import annotations


class WarmUps:
    """The allowance of each function of one agent, beside the timeout of its item.

    A lazy import or a model is loaded in the first item that a fresh worker computes, and often
    takes longer than an item may. So that item may take ``most`` seconds more, until one such
    allowance has run out. From then on the allowance is the longest warm-up measured, which is zero
    for a function that never succeeded: a function that hangs costs ``most`` only once.

    Args:
        most: Seconds of an allowance (setting start_timeout).
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._measured: dict[str, float] = {}
        self._expired: set[str] = set()

    def allowance(self, function: str) -> float:
        """Return the seconds that a first item may take on top of its timeout."""
        if function in self._expired:
            return self._measured.get(function, 0.0)
        return self._most

    def on_warmed(self, function: str, seconds: float) -> None:
        """Record that a first call ended after ``seconds``."""
        measured = max(seconds, self._measured.get(function, 0.0))
        self._measured[function] = min(measured, self._most)

    def on_expired(self, function: str) -> str:
        """Record that an allowance ran out. Returns text to put behind the timeout of the item."""
        given = self.allowance(function)
        was_new = function not in self._expired
        self._expired.add(function)
        text = (
            f" and the {given:g} s more that the first call of a function in a fresh worker may "
            "take to load what it needs"
        )
        if was_new:
            return f"{text} (setting start_timeout)"
        used = f"this function has used up {self._most:g} s (setting start_timeout) once"
        if given:
            return f"{text}: as long as that was measured to take, since {used}"
        return (
            f" in the first call of the function in a fresh worker: loading what it needs counts, "
            f"since {used}. Load it when the module is imported, or raise the timeout"
        )

    def forget(self) -> None:
        """Forget everything: the source has changed, and the functions with it."""
        self._measured.clear()
        self._expired.clear()
