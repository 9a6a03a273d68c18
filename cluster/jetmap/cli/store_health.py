"""Whether the store's disk is full, and when nats-server must start again because it was.

A stream whose write failed for want of disk takes no writes until its server starts again, even
when there is room (decision 0080).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from enum import Enum
from pathlib import Path

from jetmap.errors import JetmapError
from jetmap.nats import jetstream
from jetmap.nats.connection import Auth, Connection

LOOK_SECONDS = 2.0  # Between looks at the disk.
PROBE_SECONDS = 30.0  # Between looks at the streams of a disk that was never seen full.
FULL_BYTES = 1 << 20  # Free bytes below which the disk counts as full.
ENOUGH_BYTES = 4 << 20  # Free bytes with which the server starts again.
RESTART_SECONDS = 30.0  # Least time between two restarts.


class Step(Enum):
    """What to do after a look."""

    NOTHING = "nothing"
    SAY_FULL = "say that the disk is full"
    SAY_ROOM = "say that there is room again"
    RESTART = "restart the server"


class StoreHealth:
    """Decide from free bytes and stuck streams; seconds are those of one clock."""

    def __init__(self) -> None:
        self._is_full = False
        self._is_suspect = False  # Streams may be stuck: the disk was full, or some were.
        self._probed = float("-inf")
        self._restarted = float("-inf")

    def wants_probe(self, free: int, now: float) -> bool:
        """Whether the streams must be asked before ``decide``."""
        if free < FULL_BYTES:
            self._is_suspect = True
        return self._is_suspect or now - self._probed >= PROBE_SECONDS

    def decide(self, free: int, stuck: Collection[str] | None, now: float) -> Step:
        """stuck: the streams that take no writes; None: not asked, or no answer."""
        if stuck is not None:
            self._probed = now
            self._is_suspect = bool(stuck) or free < FULL_BYTES
        lacks = free < FULL_BYTES or (bool(stuck) and free < ENOUGH_BYTES)
        if lacks:
            was_full, self._is_full = self._is_full, True
            return Step.NOTHING if was_full else Step.SAY_FULL
        if stuck:
            if now - self._restarted < RESTART_SECONDS:
                return Step.NOTHING
            self._restarted = now
            self._is_full = False
            return Step.RESTART
        if self._is_full and free >= ENOUGH_BYTES and stuck is not None:
            self._is_full = False
            return Step.SAY_ROOM
        return Step.NOTHING


def free_bytes(directory: Path) -> int:
    """Bytes that an ordinary user may still write on the directory's file system."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


async def stuck_streams(url: str, auth: Auth) -> list[str] | None:
    """The streams of a server that take no writes; None: it does not answer."""
    try:
        connection = await Connection.open([url], name="jetmap up", auth=auth, timeout=2)
    except JetmapError:
        return None
    try:
        names = await jetstream.names(connection)
        return [name for name in names if await jetstream.write_error(connection, name)]
    except JetmapError:
        return None
    finally:
        await connection.close()
