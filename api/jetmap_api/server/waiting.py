"""Decides which connections have waited too long, and which to close when there are too many.

Plain data: no clock and no I/O. Every entry of one list has the same patience, so the first in
is the first to be overdue, and a look at the lists costs nothing while none is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)


class WaitingList(Generic[C]):
    """Connections that wait for the same thing, the longest-waiting first."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._since: OrderedDict[C, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, connection: object) -> bool:
        return connection in self._since

    def add(self, connection: C, now: float) -> None:
        """Start its wait, or start it again."""
        self._since[connection] = now
        self._since.move_to_end(connection)

    def discard(self, connection: C) -> None:
        self._since.pop(connection, None)

    def oldest(self) -> C | None:
        return next(iter(self._since), None)

    def pop_overdue(self, now: float) -> list[C]:
        """Remove and return the connections that have waited longer than the patience."""
        overdue: list[C] = []
        for connection, since in self._since.items():
            if now - since < self.patience:
                break
            overdue.append(connection)
        for connection in overdue:
            del self._since[connection]
        return overdue


class Waiting(Generic[C]):
    """All waiting connections, by what they wait for.

    silent: for a request, or for the rest of its head. idle: for the next request, after an
    answer. dropped: for the rest of a body that nobody wants. unread: for the client to read.
    closing: for the client to read a refusal.
    """

    def __init__(
        self,
        *,
        header_timeout: float,
        keep_alive: float,
        body_idle_timeout: float,
        send_timeout: float,
        linger: float,
    ) -> None:
        self.silent: WaitingList[C] = WaitingList(header_timeout)
        self.idle: WaitingList[C] = WaitingList(keep_alive)
        self.dropped: WaitingList[C] = WaitingList(body_idle_timeout)
        self.unread: WaitingList[C] = WaitingList(send_timeout)
        self.closing: WaitingList[C] = WaitingList(linger)

    @property
    def lists(self) -> tuple[WaitingList[C], ...]:
        return (self.silent, self.idle, self.dropped, self.unread, self.closing)

    def discard(self, connection: C) -> None:
        """Forget a connection that is gone."""
        for waiting in self.lists:
            waiting.discard(connection)

    def least_wanted(self, newcomer: C) -> C | None:
        """The connection to close in favour of a new one: the one that has been silent longest.

        None: all others are in the middle of a request, so it is the newcomer that must go.
        """
        for waiting in (self.closing, self.silent, self.idle, self.dropped):
            oldest = waiting.oldest()
            if oldest is not None and oldest != newcomer:
                return oldest
        return None

    @property
    def interval(self) -> float:
        """Seconds between two looks at the lists."""
        return min(1.0, min(waiting.patience for waiting in self.lists) / 4)
