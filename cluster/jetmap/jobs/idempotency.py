"""Idempotency keys, and the job that each belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Container

from jetmap.errors import KeyBusy

from .record import KeyRecord, Record
from .removal import Removal
from .store import Conflict, Store

# Seconds for which a key belongs to its job.
KEY_SECONDS = 7 * 86_400.0


def digest(caller: str, key: str) -> str:
    """Hash a caller's key into the name it is stored under."""
    return hashlib.sha256(f"{caller}\0{key}".encode()).hexdigest()


class Keys:
    """The idempotency keys of one pool.

    A job's record is written before its key, so a key whose job has no record is free.
    me: this dispatcher. uploads: jobs whose input this process is storing.
    """

    def __init__(self, store: Store, removal: Removal, me: str, uploads: Container[str]) -> None:
        self._store = store
        self._removal = removal
        self._me = me
        self._uploads = uploads

    async def holder(self, key: str) -> tuple[Record | None, int]:
        """Return the job that the key belongs to, and the key record's sequence number.

        Raises KeyBusy while that job's input is being uploaded.
        """
        while True:
            known, seq = await self._store.read_key(key)
            if known is None:
                return None, seq
            record, at = await self._store.read(known.job)
            if record is None or record.state == "deleted":
                return None, seq
            if record.state != "uploading":
                return record, seq
            if record.owner == self._me:
                is_uploading = record.id in self._uploads
            else:
                is_uploading = await self._store.has_lease(record.owner)
            if is_uploading:
                raise KeyBusy("the first request with this idempotency key is still uploading")
            await self._removal.tombstone(record, at)  # Unless it was queued just now.

    async def claim(self, key: str, job: str, after: int) -> Record | None:
        """Claim the key for a new job, or return the job that already has it. Raises KeyBusy.

        after: the sequence number that ``holder`` returned.
        """
        while True:
            try:
                record = KeyRecord(job=job, owner=self._me)
                await self._store.write_key(key, record, after, KEY_SECONDS)
            except Conflict:
                earlier, after = await self.holder(key)
                if earlier is not None:
                    return earlier
            else:
                return None
