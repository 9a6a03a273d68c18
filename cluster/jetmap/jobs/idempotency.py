"""Idempotency keys: which job has one."""

from __future__ import annotations

import hashlib
from collections.abc import Container

from jetmap.errors import KeyBusy

from .record import KeyRecord, Record
from .removal import Removal
from .store import Conflict, Store

KEY_SECONDS = 7 * 86_400.0


def digest(caller: str, key: str) -> str:
    """What a caller's key is stored under."""
    return hashlib.sha256(f"{caller}\0{key}".encode()).hexdigest()


class Keys:
    """me: this dispatcher. uploads: jobs whose input this process stores now.

    A job's record is written before its key is, so a key whose job has no record is free.
    """

    def __init__(self, store: Store, removal: Removal, me: str, uploads: Container[str]) -> None:
        self._store = store
        self._removal = removal
        self._me = me
        self._uploads = uploads

    async def holder(self, key: str) -> tuple[Record | None, int]:
        """The job that has the key, and the sequence number of what says so. Raises KeyBusy."""
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
            await self._removal.bury(record, at)  # Or it has just become a job.

    async def claim(self, key: str, job: str, after: int) -> Record | None:
        """Takes the key for a new job, or returns the one that has it. Raises KeyBusy.

        after: the sequence number that ``holder`` told.
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
