"""Closes connections that wait too long, and makes room for new ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from jetmap.settings import LimitSettings
from jetmap_api.problems import Problem

from .waiting import Waiting

if TYPE_CHECKING:
    from .connection import Connection

OnRefusal = Callable[[str | None, Problem], None]

# Seconds in which a refused client may read the refusal before its connection is cut.
LINGER = 2.0
# Share of the free descriptors that connections may take; the rest is for files and the broker.
SHARE = 0.75

SLOW_HEAD = Problem(
    408,
    "slow-head",
    "The request does not arrive",
    "its head took longer than the setting header_timeout allows: send it at once",
)
TOO_MANY_CONNECTIONS = Problem(
    503,
    "too-many-connections",
    "Too many connections are open",
    "all of them are in the middle of a request (setting max_connections, or the process's "
    "descriptors): try again when some have ended",
    headers=((b"retry-after", b"1"),),
)


class Guard:
    """The waiting connections of one server.

    most: connections open at once. on_refusal: called with the address of a client, or None, and
    what it is refused for.
    """

    def __init__(self, limits: LimitSettings, most: int, on_refusal: OnRefusal) -> None:
        self.on_refusal = on_refusal
        self.limits = limits
        self.most = most
        self.closed_silent = 0  # connections closed in favour of new ones, for tests and logs
        self.waiting: Waiting[Connection] = Waiting(
            header_timeout=limits.header_timeout,
            keep_alive=limits.keep_alive,
            body_idle_timeout=limits.body_idle_timeout,
            send_timeout=limits.send_timeout,
            linger=LINGER,
        )

    async def watch(self) -> None:
        """Close what is overdue, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.waiting.interval)
            self.look(loop.time())

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

    def admit(self, newcomer: Connection, open: int) -> bool:
        """Make room for a new connection; False: there is none. open: with the newcomer."""
        if open <= self.most:
            return True
        victim = self.waiting.least_wanted(newcomer)
        if victim is None:
            return False
        self.closed_silent += 1
        victim.abort()
        return True


def connections_allowed(limit: int | None) -> int:
    """Connections to hold at once: as the setting says, and as many as descriptors allow."""
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
