"""Remove jobs: write a tombstone first, and only then remove the data."""

from __future__ import annotations

import logging
import time

from jetmap.errors import NoRoom

from . import transitions
from .catalogue import Catalogue
from .record import Record
from .store import Conflict, Store

logger = logging.getLogger(__name__)

# Seconds that a tombstone stays, at least; then a sweep removes it.
TOMBSTONE_SECONDS = 60.0


class Removal:
    """Remove jobs and uploads, with everything stored for them."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def tombstone(self, record: Record, seq: int) -> bool:
        """Replace a job's record with a tombstone, and remove its data.

        Returns False, and removes nothing, if it was written since sequence number ``seq``. A
        sweep removes what arrives later, such as outcomes in flight.
        """
        gone = transitions.deleted(record, ttl=TOMBSTONE_SECONDS, now=time.time())
        try:
            # Without an expiry: an expired record is reported as such for an hour.
            at = await self._store.write(gone, seq)
        except Conflict:
            return False
        except NoRoom:
            if not await self._tombstone_without_room(record, gone, seq):
                return False
        else:
            self._catalogue.on_record(gone, at)
        try:
            await self._store.remove(record.id)
            await self._free_key(record)
        except NoRoom as error:
            logger.info("the rest of job %s is removed later: %s", record.id, error)
        return True

    async def _tombstone_without_room(self, record: Record, gone: Record, seq: int) -> bool:
        """Remove the record first, which needs no room and makes some; then write the tombstone.

        If that fails, other processes find the record missing at their next sweep.
        """
        if not await self._store.forget(record.id, seq):
            return False
        self._catalogue.on_removed(record.id)
        await self._store.remove(record.id)
        try:
            self._catalogue.on_record(gone, await self._store.write(gone, 0))
        except (Conflict, NoRoom) as error:
            logger.info(
                "job %s is removed; other processes will notice later: %s", record.id, error
            )
        return True

    async def drop(self, record: Record) -> None:
        """Remove an upload. If it was queued meanwhile, it stays: its caller may know it."""
        while True:
            there, seq = await self._store.read(record.id)
            if there is None or there.state == "deleted":
                await self._store.remove(record.id)
                await self._free_key(record)
                return
            if there.state != "uploading" or await self.tombstone(there, seq):
                return

    async def _free_key(self, record: Record) -> None:
        """Remove the job's idempotency key, unless it belongs to another job by now."""
        if record.key:
            known, seq = await self._store.read_key(record.key)
            if known is not None and known.job == record.id:
                await self._store.forget_key(record.key, seq)
