"""Growing pauses between attempts. No clock."""

from __future__ import annotations


class Backoff:
    """The pause before the next attempt: doubled after each failure, up to a limit.

    Args:
        first: Seconds of the first pause.
        most: Seconds of the longest.
        healthy_after: Seconds that what failed must have lasted for its failure to count as the
            first; None: only ``reset`` begins anew.
    """

    def __init__(self, first: float, most: float, *, healthy_after: float | None = None) -> None:
        self._first = first
        self._most = most
        self._healthy_after = healthy_after
        self.seconds = first

    def grow(self) -> float:
        """Return the pause that is due, and double the next one."""
        due = self.seconds
        self.seconds = min(self._most, due * 2)
        return due

    def after(self, lived: float) -> float:
        """Return the pause that is due after something that lasted ``lived`` seconds failed."""
        if self._healthy_after is not None and lived >= self._healthy_after:
            self.reset()
        return self.grow()

    def reset(self) -> None:
        """Begin again with the first pause."""
        self.seconds = self._first
