"""Close connections that wait too long or cost too much, and make room for new ones.

The lists and counters are plain data, without a clock or I/O. Every entry of a list has the same
patience, so the first in is the first to be overdue, and a look at the lists costs nothing while
none is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from jetmap.settings import LimitSettings
from jetmap_api.problems import Problem

from .refusals import SLOW_HEAD

if TYPE_CHECKING:
    from .connection import HttpConnection

OnRefusal = Callable[[str | None, Problem], None]

# Seconds that a refused client has to read the refusal.
LINGER = 2.0
# Share of the free descriptors that connections may take; the rest is for files and the broker.
SHARE = 0.75

C = TypeVar("C", bound=Hashable)


# Bytes beside the body that each of its bytes may cost: chunks of one byte cost six.
_CREDIT = 16


class Guard:
    """Watches the connections of one server.

    most: connections open at once. on_refusal: called with the address of a client, or None, and
    the refusal.
    """

    def __init__(self, limits: LimitSettings, most: int, on_refusal: OnRefusal) -> None:
        self.on_refusal = on_refusal
        self.limits = limits
        self.most = most
        self.closed_silent = 0  # connections closed in favour of new ones, for tests and logs
        self._timer: asyncio.TimerHandle | None = None
        self.waiting: Waiting[HttpConnection] = Waiting(
            header_timeout=limits.header_timeout,
            keep_alive=limits.keep_alive,
            body_idle_timeout=limits.body_idle_timeout,
            send_timeout=limits.send_timeout,
            linger=LINGER,
        )

    def start(self) -> None:
        """Close what is overdue from now on, until ``stop``."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.waiting.interval, self._on_time)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _on_time(self) -> None:
        self.start()
        self.look(asyncio.get_running_loop().time())

    def look(self, now: float) -> None:
        """Close the connections that are overdue now."""
        waiting = self.waiting
        for connection in waiting.silent.pop_overdue(now):
            connection.give_up_head(SLOW_HEAD)
        for connection in waiting.idle.pop_overdue(now):
            connection.close()
        for connection in waiting.closing.pop_overdue(now):
            connection.abort()
        for connection in waiting.dropped.pop_overdue(now):
            if connection.has_sent(self.limits.min_body_rate * waiting.dropped.patience):
                waiting.dropped.add(connection, now)
            else:
                connection.abort()
        for connection in waiting.unread.pop_overdue(now):
            if connection.has_moved():
                waiting.unread.add(connection, now)
            else:
                connection.abort()

    def admit(self, newcomer: HttpConnection, open: int) -> bool:
        """Make room for a new connection; False if there is none. open: with the newcomer."""
        if open <= self.most:
            return True
        victim = self.waiting.least_wanted(newcomer)
        if victim is None:
            return False
        self.closed_silent += 1
        victim.abort()
        return True


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
    answer. dropped: for the rest of an unwanted body. unread: for the client to read. closing:
    for the client to read a refusal.
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
        """Choose the connection to close in favour of a new one: the one silent for longest.

        None if all others are in the middle of a request; then the newcomer must go.
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


class Overhead:
    """Count what a client sends beside its bodies: heads, chunk sizes, extensions, trailers.

    limit: the most bytes without progress. Call ``progress`` when a head is complete (its bytes
    are then forgotten) or when a piece of a body came, and ``fed`` after each piece fed to the
    parser. The piece in which a head begins does not count for it.
    """

    __slots__ = ("_body", "_cleared", "_limit", "bytes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0
        self._body = 0
        self._cleared = False

    def progress(self, body: int = 0) -> None:
        if body:
            self._body += body
        else:
            self._cleared = True

    def fed(self, size: int) -> bool:
        """Count a piece; return whether it is too much now."""
        if self._cleared:
            self.bytes = 0
        else:
            self.bytes = max(0, self.bytes + size - self._body * (1 + _CREDIT))
        self._cleared = False
        self._body = 0
        return self.bytes > self._limit


def connections_allowed(limit: int | None) -> int:
    """Return the most connections: the setting, or fewer if descriptors are short."""
    free = _descriptor_limit() - _open_descriptors()
    most = max(1, int(free * SHARE))
    return most if limit is None else min(limit, most)


def raise_descriptor_limit() -> None:
    """Take all descriptors that the system grants this process."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _descriptor_limit() -> int:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 - the names are all that is wanted
    except OSError:
        return 64
