"""Reservations of jobs in the store, first come, first served."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from jetmap.errors import StoreFull, UploadLost

from .catalogue import Catalogue
from .record import Record
from .store import Conflict, Store

# Bytes reserved for a job that begins to upload.
FIRST_RESERVATION = 64 << 10

replace = msgspec.structs.replace


@dataclass
class Uploading:
    """A job whose input is being stored. seq: its record's sequence number; 0: not written yet."""

    record: Record
    seq: int = 0


class Quota:
    """Grant reservations.

    A reservation is written first. Then all earlier reservations are added up, in stream order,
    so that of two made at once the first one fits. limit: bytes. catch_up: reads the records up
    to a sequence number.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        limit: int,
        catch_up: Callable[[int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._limit = limit
        self._catch_up = catch_up

    def cap(self, room: int) -> None:
        """Promise at most nine tenths of what the broker's account may store."""
        self._limit = min(self._limit, room * 9 // 10)

    async def reserve(self, uploading: Uploading, wanted: int) -> None:
        """Reserve ``wanted`` bytes for an upload.

        Raises StoreFull, UploadLost. The caller must then drop the upload.
        """
        record = uploading.record
        before = record.reserved if uploading.seq else 0
        if record.is_fixed and wanted > record.reserved:
            raise _outgrown(record, wanted, "input takes")
        grown = replace(record, reserved=wanted, claimed=wanted - before, updated=time.time())
        try:
            uploading.seq = await self._store.write(grown, uploading.seq)
        except Conflict:
            raise lost() from None
        uploading.record = replace(grown, claimed=0)  # As its next record says.
        self._catalogue.on_record(grown, uploading.seq)
        others = await self._others(record.id, uploading.seq)
        if others + wanted > self._limit:
            raise self._full(others, wanted)

    async def room(
        self, record: Record, stored: int, write: Callable[[Record], Awaitable[int]]
    ) -> int:
        """Enlarge the reservation of a running job, and return it. Raises StoreFull.

        stored: bytes that the job takes. write: stores its record; returns the sequence number.
        """
        if record.is_fixed:
            raise _outgrown(record, stored, "input and outcomes take")
        free = self._limit - self._catalogue.reserved(record.id)
        wanted = max(stored, min(2 * stored, free))
        claimed = wanted - record.reserved
        seq = await write(replace(record, reserved=wanted, claimed=claimed, updated=time.time()))
        others = await self._others(record.id, seq)
        if others + stored > self._limit:
            raise self._full(others, stored)
        return min(wanted, self._limit - others)

    async def _others(self, job: str, seq: int) -> int:
        await self._catch_up(seq)
        return self._catalogue.reserved(job, seq)

    def _full(self, used: int, wanted: int) -> StoreFull:
        return StoreFull(
            f"the job store is full: {used:,} of {self._limit:,} bytes (job_store_bytes, "
            "or the broker's limit) are taken or reserved, and this job needs "
            f"{wanted:,}; delete finished jobs, or raise the limit",
            limit=self._limit,
            used=used,
            wanted=wanted,
        )


def lost() -> UploadLost:
    """Make the error for an upload whose record somebody else has written."""
    return UploadLost(
        "this upload was given up because nothing arrived for too long: send the request again"
    )


def _outgrown(record: Record, wanted: int, what: str) -> StoreFull:
    return StoreFull(
        f"the job's {what} {wanted:,} bytes, more than the {record.reserved:,} reserved for it",
        limit=record.reserved,
        used=record.reserved,
        wanted=wanted,
    )
