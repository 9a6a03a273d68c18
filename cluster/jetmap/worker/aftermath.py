"""Work that an item leaves to be done when it has ended; most items leave none and cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Aftermath:
    """Work after an item. ``compute`` reads ``due`` after each stretch of items, and then calls
    ``settle``; an item that leaves work is the last of its stretch.

    This class never has any: ``Cluster(inline=True)`` uses it.

    Attributes:
        stretch: The items that were entered together; one of them is in progress.
    """

    due = False
    stretch: list[Any]

    def failed(self, error: BaseException, *, refused: bool) -> None:
        """Record an error that an item raised. refused: the function was not called for it."""

    def settle(self, seconds: float) -> bool:
        """Do the work due after an item of ``seconds``; return whether the item was a warm-up."""
        return False


class WorkerAftermath(Aftermath):
    """The aftermath of a worker's items.

    Attributes:
        steps: Called after each item for which ``needed`` was called. Each step returns whether to
            call it after the next item too.
    """

    def __init__(self) -> None:
        self.due = False
        self.stretch = []
        self.steps: list[Callable[[], bool]] = []
        self._warmed: Callable[[float], None] | None = None
        self._end: Callable[[BaseException | None], None] | None = None
        self._refused = False

    def needed(self) -> None:
        """Have ``settle`` called after the item in progress, and end its stretch there."""
        self.due = True
        self.stretch.clear()

    def begin(self, warmed: Callable[[float], None] | None) -> None:
        """Prepare for a chunk.

        warmed: called with the seconds of the function's first call, if it is still to come here.
        """
        self._warmed = warmed
        self.due = self.due or warmed is not None

    def end_with(self, end: Callable[[BaseException | None], None]) -> None:
        """Have a forked child call ``end`` when the item in progress ends."""
        self._end = end
        self.needed()

    def failed(self, error: BaseException, *, refused: bool) -> None:
        if self._end is not None:
            self._end(error)
        self._refused = refused

    def settle(self, seconds: float) -> bool:
        if self._end is not None:
            self._end(None)
        warmed = None if self._refused else self._warmed
        self._refused = False
        # A list: every step is called, whatever the others return.
        again = [step() for step in self.steps]
        if warmed is not None:
            self._warmed = None
            warmed(seconds)
        self.due = any(again) or self._warmed is not None
        return warmed is not None
