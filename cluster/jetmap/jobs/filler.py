"""Room kept free for records: a full store must still accept the records that free it.

A stream of filler takes a little of the store while there is room. When a record is refused, its
writer purges the filler, which needs no room, and writes again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from jetmap.errors import BrokerUnreachable, JetmapError
from jetmap.nats import jetstream
from jetmap.nats.answers import JetStreamError, checked, lacks_room
from jetmap.nats.broker import Broker
from jetmap.nats.provision import STREAM_NOT_FOUND, Wish
from jetmap.wire import subjects

logger = logging.getLogger(__name__)

# Further messages that test whether there is room.
PROBES = 8
# Bytes of each; together more than one message of outcomes, by which a store may overshoot.
PIECE_BYTES = 64 << 10


class Filler:
    """The filler of one pool."""

    def __init__(self, connection: Broker, pool: str) -> None:
        self._connection = connection
        self._pool = pool
        self._stream = subjects.job_stream(pool, "SPARE")
        self.is_released = False  # Whether this process has purged it and not refilled it.

    async def ensure(self, copies: Sequence[int]) -> None:
        """Create and fill the stream. Where that is not allowed, no room is kept free."""
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
            logger.info("cannot keep room free for the records of jobs: %s", error)

    @property
    def size(self) -> int:
        """Return the bytes that the filler takes."""
        return subjects.SPARE_PIECES * PIECE_BYTES

    async def fill(self) -> bool:
        """Add missing filler; return False without room for it, or without its stream."""
        if await jetstream.write_error(self._connection, self._stream) is not None:
            return False
        try:
            info = await self._connection.api(f"STREAM.INFO.{self._stream}")
            for piece in range(int(info["state"]["messages"]), subjects.SPARE_PIECES):
                subject = subjects.spare(self._pool, str(piece))
                checked(await self._connection.request(subject, os.urandom(PIECE_BYTES)))
        except (JetStreamError, BrokerUnreachable) as error:
            logger.debug("cannot reserve room for records: %s", error)
            return False
        self.is_released = False
        return True

    async def release(self) -> bool:
        """Purge the filler to make room for a record; return False if there was none."""
        self.is_released = True
        try:
            answer = await self._connection.api(f"STREAM.PURGE.{self._stream}")
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                logger.debug("cannot release the room for records: %s", error)
            return False
        except BrokerUnreachable as error:
            logger.debug("cannot release the room for records: %s", error)
            return False
        return int(answer.get("purged", 0)) > 0

    async def probe_room(self) -> bool:
        """Test whether the broker accepts outcomes, by writing the filler and some more.

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
