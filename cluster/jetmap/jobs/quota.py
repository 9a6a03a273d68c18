"""Room in the store: what jobs reserve of it. Who came first has it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from jetmap.errors import StoreFull, UploadLost

from .catalogue import Catalogue
from .record import Record
from .store import Conflict, Store

FIRST_RESERVATION = 64 << 10

replace = msgspec.structs.replace


@dataclass
class Uploading:
    """A job whose input is being stored. seq: of its record; 0: none is written yet."""

    record: Record
    seq: int = 0


class Quota:
    """A reservation is written first. Then all of those that were written before it are added
    up, as the stream has them in order; so of two that come at once, the first one fits.

    limit: bytes. catch_up: reads the records up to that sequence number.
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
        """Promise no more than the broker's account may store, less a tenth for all else."""
        self._limit = min(self._limit, room * 9 // 10)

    async def reserve(self, uploading: Uploading, wanted: int) -> None:
        """Raises StoreFull, UploadLost. The upload is then to be dropped."""
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
        self._catalogue.heard(grown, uploading.seq)
        others = await self._others(record.id, uploading.seq)
        if others + wanted > self._limit:
            raise self._full(others, wanted)

    async def room(
        self, record: Record, stored: int, write: Callable[[Record], Awaitable[int]]
    ) -> int:
        """The reservation of a running job that needs more than it has. Raises StoreFull.

        stored: bytes that it takes. write: stores its record, and returns the sequence number.
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
            "or the most that the broker takes) are taken or reserved, and this job needs "
            f"{wanted:,}; delete jobs that are over, or raise the "
            "limit",
            limit=self._limit,
            used=used,
            wanted=wanted,
        )


def lost() -> UploadLost:
    """Why an upload cannot go on whose record somebody else has written."""
    return UploadLost(
        "nothing was heard of this upload for so long that it was given up: send the request again"
    )


def _outgrown(record: Record, wanted: int, what: str) -> StoreFull:
    return StoreFull(
        f"the job's {what} {wanted:,} bytes, more than the {record.reserved:,} that were reserved",
        limit=record.reserved,
        used=record.reserved,
        wanted=wanted,
    )
