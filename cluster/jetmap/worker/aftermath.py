"""What is left to do when an item has ended: only what it caused, so that most cost nothing."""

from __future__ import annotations

from collections.abc import Callable


class Aftermath:
    """Work after an item. ``compute`` looks at ``due`` after each, and then calls ``settle``.

    This one never has any: it is that of ``Cluster(inline=True)``.
    """

    due = False

    def failed(self, error: BaseException, *, refused: bool) -> None:
        """Hear what an item raised; refused: the function was not called for it."""

    def settle(self, seconds: float) -> bool:
        """Do what is due after an item of so many seconds; return whether it was a warm-up."""
        return False


class WorkerAftermath(Aftermath):
    """The aftermath of a worker's items.

    Attributes:
        steps: Called after an item for which one said ``needed``. Each returns whether to be
            called after the next item too.
    """

    def __init__(self) -> None:
        self.due = False
        self.steps: list[Callable[[], bool]] = []
        self._warmed: Callable[[float], None] | None = None
        self._end: Callable[[BaseException | None], None] | None = None
        self._refused = False

    def needed(self) -> None:
        """Have ``settle`` called after the item in progress."""
        self.due = True

    def begin(self, warmed: Callable[[float], None] | None) -> None:
        """Before a chunk. warmed: called with the seconds of its function's first call, if that
        is still to come in this process."""
        self._warmed = warmed
        self.due = self.due or warmed is not None

    def end_with(self, end: Callable[[BaseException | None], None]) -> None:
        """In a forked child: have ``end`` called when the item in progress ends."""
        self._end = end
        self.due = True

    def failed(self, error: BaseException, *, refused: bool) -> None:
        if self._end is not None:
            self._end(error)
        self._refused = refused

    def settle(self, seconds: float) -> bool:
        if self._end is not None:
            self._end(None)
        warmed = None if self._refused else self._warmed
        self._refused = False
        # A list: each step is taken, whatever the others say.
        again = [step() for step in self.steps]
        if warmed is not None:
            self._warmed = None
            warmed(seconds)
        self.due = any(again) or self._warmed is not None
        return warmed is not None
