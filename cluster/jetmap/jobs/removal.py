"""Removing jobs: first the record says that a job is gone, and only then is anything removed."""

from __future__ import annotations

import logging
import time

import msgspec

from jetmap.errors import NoRoom

from .catalogue import Catalogue
from .record import Record
from .store import Conflict, Store

logger = logging.getLogger(__name__)

TOMBSTONE_SECONDS = 60.0  # How long a record says so, at least; then a sweep takes it away.


class Removal:
    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def bury(self, record: Record, seq: int) -> bool:
        """Removes a job, if its record is still that with this sequence number.

        False: somebody has written it since, and nothing is removed. What comes late, such as
        outcomes that were on their way, a sweep removes.
        """
        gone = msgspec.structs.replace(
            record,
            state="deleted",
            owner="",
            reserved=0,
            claimed=0,
            kwargs=b"",
            updated=time.time(),
            ttl=TOMBSTONE_SECONDS,
        )
        try:
            # It does not expire: what has expired is told of for an hour.
            at = await self._store.write(gone, seq)
        except Conflict:
            return False
        except NoRoom:
            if not await self._bury_without_room(record, gone, seq):
                return False
        else:
            self._catalogue.heard(gone, at)
        try:
            await self._store.remove(record.id)
            await self._free_key(record)
        except NoRoom as error:
            logger.info("what is left of job %s is removed later: %s", record.id, error)
        return True

    async def _bury_without_room(self, record: Record, gone: Record, seq: int) -> bool:
        """Removing needs no room and makes some; then the others are told.

        Whom nobody can tell misses the record at the next sweep.
        """
        if not await self._store.forget(record.id, seq):
            return False
        self._catalogue.gone(record.id)
        await self._store.remove(record.id)
        try:
            self._catalogue.heard(gone, await self._store.write(gone, 0))
        except (Conflict, NoRoom) as error:
            logger.info("job %s is removed, and others see it later: %s", record.id, error)
        return True

    async def drop(self, record: Record) -> None:
        """Removes an upload. One that has become a job stays: somebody may know of it."""
        while True:
            there, seq = await self._store.read(record.id)
            if there is None or there.state == "deleted":
                await self._store.remove(record.id)
                await self._free_key(record)
                return
            if there.state != "uploading" or await self.bury(there, seq):
                return

    async def _free_key(self, record: Record) -> None:
        """It may belong to another job by now."""
        if record.key:
            known, seq = await self._store.read_key(record.key)
            if known is not None and known.job == record.id:
                await self._store.forget_key(record.key, seq)
