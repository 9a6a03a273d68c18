"""Room kept free for records: a full store must still take what frees it.

A stream of filler takes a little of the store while there is room. When a record is refused,
whoever writes it purges the filler, which needs no room, and writes again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from jetmap.errors import BrokerUnreachable, JetmapError
from jetmap.nats import jetstream
from jetmap.nats.broker import Broker
from jetmap.nats.errors import JetStreamError, checked, lacks_room
from jetmap.nats.provision import STREAM_NOT_FOUND, Wish
from jetmap.wire import subjects

logger = logging.getLogger(__name__)

PIECES = 16
PROBES = 8
PIECE_BYTES = 64 << 10  # Together more than one message of outcomes, by which a store overshoots.


class Spare:
    """The filler of one pool."""

    def __init__(self, connection: Broker, pool: str) -> None:
        self._connection = connection
        self._pool = pool
        self._stream = subjects.job_stream(pool, "SPARE")
        self.is_released = False  # By this process, and not filled again.

    async def ensure(self, copies: Sequence[int]) -> None:
        """Make and fill it; where that is not allowed, there is none."""
        config = {
            "name": self._stream,
            "subjects": [subjects.spare(self._pool, ">")],
            "retention": "limits",
            "discard": "new",
            "max_msgs_per_subject": 1,
            "max_age": 0,
        }
        try:
            wish = Wish(config, copies=copies, places=[("file", -1), ("file", 2 * self.size)])
            await jetstream.ensure(self._connection, self._stream, wish, {})
            await self.fill()
        except JetmapError as error:
            logger.info("no room is kept free for the records of jobs: %s", error)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return PIECES * PIECE_BYTES

    async def fill(self) -> bool:
        """Take what is missing of it; False: there is no room, or no such stream."""
        if await jetstream.write_error(self._connection, self._stream) is not None:
            return False
        try:
            info = await self._connection.api(f"STREAM.INFO.{self._stream}")
            for piece in range(int(info["state"]["messages"]), PIECES):
                subject = subjects.spare(self._pool, str(piece))
                checked(await self._connection.request(subject, os.urandom(PIECE_BYTES)))
        except (JetStreamError, BrokerUnreachable) as error:
            logger.debug("the room for records is not filled: %s", error)
            return False
        self.is_released = False
        return True

    async def release(self) -> bool:
        """Give its room to a record; whether there was any."""
        self.is_released = True
        try:
            answer = await self._connection.api(f"STREAM.PURGE.{self._stream}")
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                logger.debug("the room for records is not released: %s", error)
            return False
        except BrokerUnreachable as error:
            logger.debug("the room for records is not released: %s", error)
            return False
        return int(answer.get("purged", 0)) > 0

    async def has_room(self) -> bool:
        """Whether the broker takes outcomes now: there is room for the filler and some more.

        Raises BrokerUnreachable.
        """
        outcomes = subjects.job_stream(self._pool, "OUTCOMES")
        if await jetstream.write_error(self._connection, outcomes) is not None:
            return False
        try:
            info = await self._connection.api(f"STREAM.INFO.{outcomes}")
            limit = info["config"].get("max_bytes", -1)
            if 0 < limit <= info["state"]["bytes"] + PIECE_BYTES:
                return False
            if not await self.fill():
                return False
            try:
                for piece in range(PROBES):
                    subject = subjects.spare_probe(self._pool, str(piece))
                    checked(await self._connection.request(subject, os.urandom(PIECE_BYTES)))
            finally:
                probes = {"filter": subjects.spare_probe(self._pool, "*")}
                await self._connection.api(f"STREAM.PURGE.{self._stream}", probes)
        except JetStreamError as error:
            return not lacks_room(error)
        except BrokerUnreachable:
            if await jetstream.write_error(self._connection, self._stream) is None:
                raise
            return False
        return True
