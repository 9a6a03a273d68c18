"""The time after which a chunk gives back the items that it has not begun."""

from __future__ import annotations

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """The seconds a chunk may compute before it begins its item at ``position``.

    A chunk may take ``seconds``, plus ``each`` for every item begun: if its cost is only a guess,
    it has to keep up with the guess from its first item on.
    """

    seconds: float
    each: float = 0.0

    def until(self, position: int) -> float:
        """Return the seconds from the chunk's start after which the item there is given back."""
        return self.seconds + self.each * position

    def is_spent(self, position: int, elapsed: float) -> bool:
        """Return whether to give back the items from ``position`` on; never the first."""
        return position > 0 and elapsed >= self.until(position)


# A budget of more seconds than any chunk takes; finite, so that it fits into shared memory.
NO_LIMIT = Budget(1e9)
