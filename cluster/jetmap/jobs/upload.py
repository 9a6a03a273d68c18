"""Store the input of a new job."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from jetmap.dispatch.sources import Element
from jetmap.errors import JobEnded, KeyReused
from jetmap.wire import arrays, subjects
from jetmap.wire.constants import Constant
from jetmap.wire.messages import encode

from .record import InputFragment, InputPart, Record
from .store import Store
from .stored_constants import ConstantPart

# Bytes and items of one part, at most.
PART_BYTES = 256 << 10
PART_ITEMS = 16_384
# Bytes of one part of an item that is too large for a message.
FRAGMENT_BYTES = 512 << 10
# Parts in flight at once.
IN_FLIGHT = 8


class UploadPlace(Protocol):
    """The place of a new job in the store."""

    async def grow(self, size: int) -> None:
        """Make room for ``size`` bytes of input in all. Raises StoreFull, UploadLost."""

    async def queue(self, total: int, parts: int, size: int, digest: str) -> Record:
        """Queue the job, whose input is stored. Raises UploadLost."""

    async def drop(self) -> None:
        """Remove everything that was stored."""


class Upload:
    """An upload of a job's items: ``commit`` queues the job, ``abort`` removes everything.

    place: where the items are stored. earlier: the job that already has this idempotency key; the
    items are then only compared, and need no place. room: bytes of items that fit into the broker's
    largest message.
    """

    def __init__(
        self,
        store: Store,
        record: Record,
        *,
        place: UploadPlace | None = None,
        earlier: Record | None = None,
        room: int = PART_BYTES,
    ) -> None:
        self.id = record.id
        self.earlier = earlier
        self._store = store
        self._record = record
        self._place = place
        self._room = room
        self._part_bytes = min(PART_BYTES, room)
        self._hash = hashlib.sha256(
            msgspec.json.encode((record.function, record.format, record.timeout, record.ttl))
        )
        self._hash.update(record.kwargs)
        if record.max_failed is not None:
            self._hash.update(record.max_failed.encode())
        if not record.values:
            self._hash.update(b"without values")
        self._waiting: list[Element] = []
        self._waiting_bytes = 0
        self._total = 0
        self._parts = 0
        self._bytes = 0
        self._flying: set[asyncio.Task[int]] = set()
        self._ended = False

    async def put(self, elements: Sequence[Element]) -> None:
        """Add encoded items; wait while too many parts are in flight.

        Raises StoreFull, UploadLost, BrokerUnreachable. The caller must then abort the upload.
        """
        if self._ended:
            raise JobEnded("this upload has ended", state="failed")
        for element in elements:
            size = len(memoryview(element))
            if self._waiting and (
                self._waiting_bytes + size > self._part_bytes or len(self._waiting) >= PART_ITEMS
            ):
                await self._send()
            self._waiting.append(element)
            self._waiting_bytes += size + 1

    async def put_constant(self, constant: Constant, data: memoryview) -> None:
        """Store a constant of the keyword parameters. Raises as ``put`` does."""
        if self.earlier is not None:
            return  # It is named by its digest, which is compared.
        subject, most = subjects.job_constants(self._store.pool, self.id), self._part_bytes
        for at in range(0, constant.size, most):
            part = ConstantPart(constant.digest, at, data[at : at + most])
            await self._store_part(subject, encode(part))

    async def commit(self) -> Record:
        """Queue the job, once its whole input is durable.

        Raises KeyReused if ``earlier`` had other items, function or parameters; UploadLost;
        BrokerUnreachable. The caller must then abort the upload.
        """
        if self._waiting:
            await self._send()
        digest = self._hash.hexdigest()
        if self.earlier is not None:
            self._ended = True
            if digest != self.earlier.digest:
                raise KeyReused(
                    f"this idempotency key belongs to job {self.earlier.id}, which had another "
                    "body, function or parameters: use a new key for a new job"
                )
            return self.earlier
        assert self._place is not None
        await self._landed(0)
        record = await self._place.queue(self._total, self._parts, self._bytes, digest)
        self._ended = True
        return record

    async def abort(self) -> None:
        """Remove everything stored. Harmless after ``commit``.

        If only the reply to the commit was lost, the job stays.
        """
        if self._ended:
            return
        self._ended = True
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)
        self._flying.clear()
        if self._place is not None:
            await self._place.drop()

    async def _send(self) -> None:
        items = arrays.join(self._waiting, self._record.format)
        start, count, most = self._total, len(self._waiting), min(FRAGMENT_BYTES, self._room)
        self._total += count
        self._waiting, self._waiting_bytes = [], 0
        if len(items) <= self._room:
            await self._append(encode(InputPart(start, count, items)))
            return
        for at in range(0, len(items), most):
            fragment = InputFragment(start, count, items[at : at + most], at, len(items))
            await self._append(encode(fragment))

    async def _append(self, data: bytes) -> None:
        self._parts += 1
        # The same items always make the same parts.
        self._hash.update(data)
        if self.earlier is not None:
            return
        await self._store_part(subjects.job_input(self._store.pool, self.id), data)

    async def _store_part(self, subject: str, data: bytes) -> None:
        assert self._place is not None
        self._bytes += len(data)
        await self._place.grow(self._bytes)
        await self._landed(IN_FLIGHT - 1)
        task = asyncio.get_running_loop().create_task(self._store.append(subject, data))
        self._flying.add(task)

    async def _landed(self, most: int) -> None:
        """Wait until at most ``most`` parts are in flight."""
        while len(self._flying) > most:
            done, self._flying = await asyncio.wait(
                self._flying, return_when=asyncio.FIRST_COMPLETED
            )
            failed = [error for task in done if (error := task.exception()) is not None]
            if failed:
                raise failed[0]
