"""The store of ``jetmap up``: its directory, held by one server at a time, and its disk.

A stream whose write failed because the disk was full takes no writes until its server starts again,
even when there is room (decision 0080).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jetmap.embedded.locks import take
from jetmap.errors import ConfigurationError, JetmapError
from jetmap.machine import working_directory
from jetmap.nats.auth import Auth
from jetmap.settings import Settings

logger = logging.getLogger(__name__)

NONE = "none"
RELEASE_SECONDS = 5.0  # Seconds that the server of a killed `up` may take to end.
LOOK_SECONDS = 2.0  # Seconds between two checks of the disk.
PROBE_SECONDS = 30.0  # Seconds between two checks of the streams while the disk is not full.
FULL_BYTES = 1 << 20  # Free bytes below which the disk counts as full.
ENOUGH_BYTES = 4 << 20  # Free bytes from which the server is restarted.
RESTART_SECONDS = 30.0  # Least seconds between two restarts.


# The directory


@dataclass
class HeldStore:
    """A store that only this process and its server use while the descriptor is open."""

    directory: Path
    descriptor: int

    def close(self) -> None:
        """Release the store. Calling it again is safe."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def hold_store(settings: Settings) -> HeldStore | None:
    """Take the store of the settings, else the default one; None if there is none.

    Waits for the server of an ``up`` that was just killed. Raises ConfigurationError if the
    store of the settings cannot be used. Without the default one there are no jobs.
    """
    if settings.server.store == NONE:
        return None
    if settings.server.store is not None:
        return _held(Path(settings.server.store).absolute(), RELEASE_SECONDS)
    try:
        directory = default_store(working_directory(), settings.broker.pool)
        found = _held(directory, RELEASE_SECONDS)
        _note(directory, settings.broker.pool)
    except ConfigurationError as error:
        logger.warning("%s: there will be no jobs", error)
        return None
    return found


def default_store(cwd: Path, pool: str) -> Path:
    """Return the path for a working directory and pool, in $XDG_STATE_HOME or ~/.local/state.

    Raises ConfigurationError if this user has no home directory.
    """
    state = os.environ.get("XDG_STATE_HOME", "")  # The standard says to ignore relative ones.
    if not os.path.isabs(state):  # noqa: PTH117
        try:
            state = str(Path.home() / ".local" / "state")
        except RuntimeError as error:
            raise ConfigurationError(["this user has no home directory to keep jobs in"]) from error
    origin = os.fsencode(cwd.resolve()) + b"\0" + pool.encode()
    return Path(state) / "jetmap" / hashlib.sha256(origin).hexdigest()[:16]


def _held(directory: Path, patience: float) -> HeldStore:
    deadline = time.monotonic() + patience
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while (descriptor := take(directory / "jetmap.lock")) is None:
            if time.monotonic() >= deadline:
                raise ConfigurationError([f"the store {directory} is used by another `jetmap up`"])
            time.sleep(0.05)
    except FileExistsError as error:
        raise ConfigurationError([f"the store {directory} is a file: name a directory"]) from error
    except OSError as error:
        raise ConfigurationError(
            [f"the store {directory} cannot be used: {error.strerror}"]
        ) from error
    return HeldStore(directory, descriptor)


def _note(directory: Path, pool: str) -> None:
    """Leave a note for people who find the directory."""
    text = f"Jobs of `jetmap up` in {working_directory()}, pool {pool}. Remove it to delete them.\n"
    with contextlib.suppress(OSError):
        (directory / "README").write_text(text, encoding="utf-8", errors="replace")


# The disk


class DiskAction(Enum):
    """The action that follows a check."""

    NOTHING = "nothing"
    REPORT_FULL = "report that the disk is full"
    REPORT_ROOM = "report that there is room again"
    RESTART = "restart the server"


class StoreHealth:
    """Decide from free bytes and stuck streams what to do. No I/O and no clock."""

    def __init__(self) -> None:
        self._is_full = False
        self._is_suspect = False  # Streams may be stuck: the disk is or was full.
        self._probed = float("-inf")
        self._restarted = float("-inf")

    def wants_probe(self, free: int, now: float) -> bool:
        """Return whether the streams must be checked before ``decide``."""
        if free < FULL_BYTES:
            self._is_suspect = True
        return self._is_suspect or now - self._probed >= PROBE_SECONDS

    def decide(
        self, free: int, stuck: Collection[str] | None, now: float, *, is_cramped: bool = False
    ) -> DiskAction:
        """Return the action for the current state.

        Args:
            free: Free bytes of the disk.
            stuck: The streams that accept no writes; None if they were not checked.
            now: Seconds of a monotonic clock.
            is_cramped: Whether the server allows itself much less than there is room for.
        """
        if stuck is not None:
            self._probed = now
            self._is_suspect = bool(stuck) or free < FULL_BYTES
        lacks = free < FULL_BYTES or (bool(stuck) and free < ENOUGH_BYTES)
        if lacks:
            was_full, self._is_full = self._is_full, True
            return DiskAction.NOTHING if was_full else DiskAction.REPORT_FULL
        if stuck or (is_cramped and stuck is not None and free >= ENOUGH_BYTES):
            if now - self._restarted < RESTART_SECONDS:
                return DiskAction.NOTHING
            self._restarted = now
            self._is_full = False
            return DiskAction.RESTART
        if self._is_full and free >= ENOUGH_BYTES and stuck is not None:
            self._is_full = False
            return DiskAction.REPORT_ROOM
        return DiskAction.NOTHING


def free_bytes(directory: Path) -> int:
    """Return the bytes that an ordinary user can still write on the directory's file system."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


async def stuck_streams(url: str, auth: Auth) -> list[str] | None:
    """List the streams of a server that accept no writes; None if it does not answer."""
    # Minutes after the start, which need not wait for these.
    from jetmap.nats import jetstream
    from jetmap.nats.connection import Connection

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
