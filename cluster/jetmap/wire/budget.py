"""When a chunk has taken longer than it may, and gives back the items that it has not begun."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """The seconds a chunk may compute before it begins its item at ``position``.

    A chunk may take ``seconds``, and ``each`` more for every item that it has begun: one whose
    cost was only guessed has to keep up with the guess from its first item on.
    """

    seconds: float
    each: float = 0.0

    def until(self, position: int) -> float:
        """Seconds from the chunk's start after which the item at ``position`` is given back."""
        return self.seconds + self.each * position

    def is_spent(self, position: int, elapsed: float) -> bool:
        """Whether the items from ``position`` on are given back; the first never is."""
        return position > 0 and elapsed >= self.until(position)


NO_LIMIT = Budget(1e9)  # Seconds, in words of memory too.
