"""Failures that took calls with them, kept until somebody reads one of the futures."""

from __future__ import annotations

import threading
from types import TracebackType


class UnreadFailures:
    """The failures that no future and no iterator has raised yet.

    Calls whose futures are dropped would be lost without a word.
    """

    def __init__(self) -> None:
        # Each with its traceback, which grows when it is raised.
        self._kept: list[tuple[BaseException, TracebackType | None]] = []
        self._lock = threading.Lock()

    def add(self, failure: BaseException) -> None:
        """Keep a failure before any call gets it."""
        with self._lock:
            self._kept = [
                (other, known)
                for other, known in self._kept
                if other is not failure and other.__traceback__ is known
            ]
            self._kept.append((failure, failure.__traceback__))

    def discard(self, failure: BaseException) -> None:
        """Forget a failure that was raised in the words of another."""
        with self._lock:
            self._kept = [kept for kept in self._kept if kept[0] is not failure]

    def take(self) -> list[BaseException]:
        """Return those that nobody has read, and forget all."""
        with self._lock:
            kept, self._kept = self._kept, []
        return [failure for failure, known in kept if failure.__traceback__ is known]
