"""Begin the uploads of new jobs: under their idempotency key, and within the quota."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from jetmap.errors import JetmapError, StoreFull

from . import idempotency, transitions
from .catalogue import Catalogue
from .monitor import JobMonitor
from .quota import Quota, Uploading, lost
from .record import Record
from .removal import Removal
from .store import Conflict, Store
from .upload import Upload

logger = logging.getLogger(__name__)

# Seconds for removing an upload that could not begin; later, the monitor removes it.
DROP_SECONDS = 5.0


class Submitting:
    """Begin jobs at their callers' request.

    Args:
        me: The dispatcher that will run them.
        room: Returns the bytes of items that fit into the broker's largest message.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        me: str,
        *,
        monitor: JobMonitor,
        removal: Removal,
        quota: Quota,
        room: Callable[[], int],
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._monitor = monitor
        self._removal = removal
        self._quota = quota
        self._room = room
        self._keys = idempotency.Keys(store, removal, me, monitor.uploads)

    async def begin(self, record: Record) -> Upload:
        """Begin the upload of a job, or of one to compare with the job that has its key already.

        Raises KeyBusy, StoreFull, BrokerUnreachable.
        """
        await self._monitor.hold_lease()
        earlier, known = await self._keys.holder(record.key) if record.key else (None, 0)
        if earlier is not None:
            return Upload(self._store, record, earlier=earlier, room=self._room())
        place = ReservedPlace(
            Uploading(record),
            self._store,
            self._catalogue,
            self._monitor,
            self._removal,
            self._quota,
        )
        # Before its record and key exist, since others may then ask whether it is being uploaded.
        self._monitor.uploads.add(record.id)
        try:
            await place.reserve(record.reserved)
            if record.key:
                earlier = await self._keys.claim(record.key, record.id, known)
        except BaseException:
            await place.give_up()
            raise
        if earlier is not None:
            await place.give_up()
            return Upload(self._store, record, earlier=earlier, room=self._room())
        return Upload(self._store, record, place=place, room=self._room())


class ReservedPlace:
    """The place of one new job in the store: it grows with the input, until it is queued."""

    def __init__(
        self,
        uploading: Uploading,
        store: Store,
        catalogue: Catalogue,
        monitor: JobMonitor,
        removal: Removal,
        quota: Quota,
    ) -> None:
        self._uploading = uploading
        self._store = store
        self._catalogue = catalogue
        self._monitor = monitor
        self._removal = removal
        self._quota = quota

    async def reserve(self, size: int) -> None:
        """Reserve bytes. Raises StoreFull, UploadLost; the place must then be given up."""
        await self._quota.reserve(self._uploading, size)

    async def grow(self, size: int) -> None:
        """Make room for ``size`` bytes of input, and for its outcomes unless a size is fixed."""
        record = self._uploading.record
        if size > record.reserved if record.is_fixed else 2 * size > record.reserved:
            try:
                await self.reserve(size if record.is_fixed else 4 * size)
            except StoreFull:
                await self.give_up()  # At once: others wait for room.
                raise

    async def queue(self, total: int, parts: int, size: int, digest: str) -> Record:
        """Queue the job, whose input is stored. Raises UploadLost."""
        queued = transitions.queued(
            self._uploading.record,
            total=total,
            parts=parts,
            size=size,
            digest=digest,
            now=time.time(),
        )
        try:
            seq = await self._store.write(queued, self._uploading.seq)
        except Conflict:
            raise lost() from None
        self._catalogue.on_record(queued, seq)
        self._monitor.uploads.discard(queued.id)
        return queued

    async def drop(self) -> None:
        """Remove everything that was stored."""
        record = self._uploading.record
        self._monitor.uploads.discard(record.id)
        await self._removal.drop(record)

    async def give_up(self) -> None:
        """Drop a job that could not begin, or go on, if the broker answers soon."""
        try:
            async with asyncio.timeout(DROP_SECONDS):
                await self.drop()
        except (JetmapError, TimeoutError) as error:
            logger.info("upload %s is removed later: %r", self._uploading.record.id, error)
