"""Cancel jobs: end the record first, then free the cores, then count what was done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from jetmap.background import Background
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.errors import JetmapError, NoRoom

from . import transitions
from .catalogue import Catalogue
from .outcomes import StoredOutcomes
from .record import Record, check_readable
from .store import Conflict, Store

logger = logging.getLogger(__name__)

# Seconds for counting a cancelled job's outcomes while its caller waits.
COUNT_SECONDS = 2.0
# Seconds after which the outcomes in flight at a cancellation have arrived, and are counted.
LATE_SECONDS = 3.0


class Cancelling:
    """End jobs at their callers' request.

    Args:
        get: Reads a job's record from the leader; raises UnknownJob.
        outcomes: Returns the reader of a job's outcomes.
        background: Owner of the late counts.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        dispatcher: Dispatcher,
        background: Background,
        *,
        get: Callable[[str], Awaitable[Record]],
        outcomes: Callable[[Record], StoredOutcomes],
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._dispatcher = dispatcher
        self._background = background
        self._get = get
        self._outcomes = outcomes

    async def cancel(self, id: str) -> Record:
        """End a job and free its cores at once. A finished job stays as it is."""
        record, seq = await self.end(id)
        if seq and record.epoch:
            record, seq = await self._count(record, seq, COUNT_SECONDS)
            self._background.spawn(self._count_late(record, seq), "count late")
        return record

    async def end(self, id: str) -> tuple[Record, int]:
        """End a job. Returns its last record, and the sequence number, or 0 if it was over."""
        while True:
            record = await self._get(id)
            check_readable(record)
            if record.is_over:
                return record, 0
            cancelled = transitions.cancelled(record, time.time())
            try:
                seq = await self._write(cancelled, self._catalogue.seq(id))
            except Conflict:
                continue
            self._catalogue.on_record(cancelled, seq)
            if record.epoch:
                await self._dispatcher.recall(transitions.last_map(record))
            await self._store.remove_input(record)
            return cancelled, seq

    async def _write(self, cancelled: Record, seq: int) -> int:
        try:
            return await self._store.write(cancelled, seq, ttl=cancelled.ttl)
        except NoRoom:
            # Its input is no longer needed, and removing it makes room.
            await self._store.remove_input(cancelled)
            return await self._store.write(cancelled, seq, ttl=cancelled.ttl)

    async def _count(self, record: Record, seq: int, seconds: float) -> tuple[Record, int]:
        """Record the counts of a cancelled job: its owner's last ones may be a second old."""
        try:
            async with asyncio.timeout(seconds):
                outcomes = self._outcomes(record)
                await outcomes.complete()
                index = outcomes.index
                counted = transitions.counted(
                    record, done=index.done, failed=index.failed, stored=index.stored
                )
                if counted != record:
                    seq = await self._store.write(counted, seq, ttl=record.ttl)
                    self._catalogue.on_record(counted, seq)
                    record = counted
        except (JetmapError, TimeoutError) as error:
            logger.debug("cannot count the outcomes of job %s: %r", record.id, error)
        return record, seq

    async def _count_late(self, record: Record, seq: int) -> None:
        """Count again, for the outcomes that were in flight at the cancellation."""
        await asyncio.sleep(LATE_SECONDS)
        await self._count(record, seq, 10 * COUNT_SECONDS)
