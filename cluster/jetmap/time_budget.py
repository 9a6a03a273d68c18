"""Seconds that may be waited; a process spends few while it is frozen. No I/O, no clock."""

from __future__ import annotations


class TimeBudget:
    """Seconds of waiting, spent in steps.

    A process may be stopped in a terminal, or its machine may stand still. What came meanwhile is
    read only afterwards, so a step counts for twice what it was to take, at most.

    Args:
        seconds: All that may be waited.

    Attributes:
        left: Seconds that are left.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._step = 0.0

    def step(self, most: float) -> float:
        """Begin a step; return the seconds that it may take, ``most`` of them or what is left."""
        self._step = max(0.0, min(most, self.left))
        return self._step

    def spend(self, seconds: float) -> None:
        """End a step that took this long."""
        self.left -= min(seconds, 2 * self._step)

    @property
    def is_over(self) -> bool:
        """Return whether nothing is left."""
        return self.left <= 0
