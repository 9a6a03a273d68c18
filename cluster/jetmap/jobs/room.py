"""Room in the store of jobs: waiting for it, and finding out that a running job lacks it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from jetmap.errors import NoRoom

from .filler import Filler

logger = logging.getLogger(__name__)

# Seconds between attempts while the broker has no room.
ROOM_SECONDS = 2.0
FULL = (
    "the NATS server has no room for outcomes: delete finished jobs, or give the server more "
    "room; nothing is lost meanwhile"
)


async def until_room(store: Callable[[], Awaitable[int]]) -> int:
    """Store something as soon as the broker has room: a full store does not end a job."""
    while True:
        try:
            return await store()
        except NoRoom as error:
            logger.info("a job waits for room: %s", error)
        await asyncio.sleep(ROOM_SECONDS)


class RoomCheck:
    """Find out whether the outcomes of one job can be stored, once none came for a while."""

    def __init__(self, filler: Filler) -> None:
        self._filler = filler
        self._done = -1  # Outcomes when the broker's room was last checked,
        self._checked = 0.0  # and the time.
        self._lack: str | None = None

    async def lack(self, done: int, now: float) -> str | None:
        """Return why outcomes cannot be stored; None if they can, or if new ones came.

        Args:
            done: Number of the job's outcomes.
        """
        if done != self._done:
            self._done, self._checked, self._lack = done, now, None
        elif now - self._checked >= ROOM_SECONDS:
            self._checked = now
            self._lack = None if await self._filler.probe_room() else FULL
        return self._lack
