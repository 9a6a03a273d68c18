"""Jobs as gateways and callers use them: submit, look, read, cancel, remove."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from jetmap import subjects
from jetmap.broker.connection import Connection, JetStreamError
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.errors import (
    JobsUnavailable,
    KeyBusy,
    NoWorkers,
    StoreFull,
    UnknownJob,
    WorkerStartFailed,
)
from jetmap.messages import Format

from . import streams
from .carrier import Carrier
from .catalogue import Catalogue
from .fold import Fold
from .outcomes import Outcomes
from .records import KeyRecord, Record, State
from .store import Conflict, Store
from .upload import Upload
from .watch import Watch

logger = logging.getLogger(__name__)

KEY_SECONDS = 7 * 86_400.0
TOMBSTONE_SECONDS = 60.0
FIRST_RESERVATION = 64 << 10
LOOK_SECONDS = 0.5  # Between looks at a job whose outcomes are awaited, at most.
FOLDS_KEPT = 256

replace = msgspec.structs.replace


@dataclass(frozen=True)
class JobOptions:
    """ttl: seconds that a job is kept after its end. weight: one job's share of the cores beside
    a map's 1. most: jobs that one dispatcher runs at once. refusal: why there can be none."""

    ttl: float = 86_400.0
    weight: float = 0.25
    most: int = 64
    store: streams.StoreOptions = field(default_factory=streams.StoreOptions)
    refusal: str | None = None


class Jobs:
    """The jobs of one pool. A process that has started it also carries them.

    store: the streams they live in.
    """

    def __init__(
        self, connection: Connection, dispatcher: Dispatcher, pool: str, options: JobOptions
    ) -> None:
        self._connection = connection
        self._dispatcher = dispatcher
        self._options = options
        self.store = Store(connection, pool)
        self._catalogue = Catalogue(self._heard)
        self._carrier = Carrier(
            dispatcher,
            self.store,
            self._catalogue,
            weight=options.weight,
            most=options.most,
            room=self._room,
        )
        self._watch = Watch(self.store, dispatcher.id, self._catalogue, self._carrier)
        self._folds: OrderedDict[str, Fold] = OrderedDict()

    async def start(self) -> None:
        """Carries the jobs that are there, now or later. Raises nothing but BrokerUnreachable."""
        if self._options.refusal is None:
            await self._watch.start()

    async def close(self) -> None:
        """Lets go of what is carried here, for others to take over at once."""
        await self._carrier.close()
        await self._watch.close()

    # Submitting

    async def begin(
        self,
        function: str,
        *,
        format: Format,
        kwargs: bytes = b"",
        caller: str = "",
        key: str | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        reserve: int | None = None,
    ) -> Upload:
        """Starts to take a job's items.

        caller, key: who submits, and their idempotency key. ttl: seconds that the job is kept
        after its end. timeout: seconds for the whole job. reserve: bytes of the store that its
        input and outcomes may take; else what they need, while there is room. Raises
        UnknownFunction, KeyBusy, StoreFull, JobsUnavailable, LimitExceeded, BrokerUnreachable.
        """
        self._dispatcher.check_overhead(len(kwargs))
        await self._ensure()
        try:
            await self._dispatcher.attendance.find(function, None, 1.0)
        except (NoWorkers, WorkerStartFailed) as error:
            logger.info("a job for %r waits for workers: %s", function, error)
        digest = "" if key is None else hashlib.sha256(f"{caller}\0{key}".encode()).hexdigest()
        record = Record(
            id=subjects.new_id(12).replace("_", "a").replace("-", "b"),
            function=function,
            format=format,
            kwargs=kwargs,
            caller=caller,
            key=digest,
            owner=self._dispatcher.id,
            created=time.time(),
            ttl=self._options.ttl if ttl is None else ttl,
            timeout=timeout,
            reserved=reserve or FIRST_RESERVATION,
        )
        await self._watch.hold_lease()
        earlier = await self._claim_key(digest, record.id) if digest else None
        if earlier is not None:
            return self._upload(record, None, earlier)
        uploading = _Uploading(record, 0, reserve is not None)
        try:
            await self._reserve(uploading, record.reserved)
        except BaseException:
            if digest:
                await self.store.forget_key(digest)
            raise
        self._watch.uploads.add(record.id)
        return self._upload(record, uploading, None)

    def _upload(
        self, record: Record, uploading: _Uploading | None, earlier: Record | None
    ) -> Upload:
        async def grow(size: int) -> None:
            assert uploading is not None
            reserved = uploading.record.reserved
            if size > reserved if uploading.fixed else 2 * size > reserved:
                await self._reserve(uploading, 4 * size)

        async def done(total: int, parts: int, size: int, digest: str) -> Record:
            assert uploading is not None
            queued = replace(
                uploading.record,
                state="queued",
                total=total,
                parts=parts,
                input_bytes=size,
                stored=size,
                digest=digest,
                updated=time.time(),
            )
            seq = await self.store.write(queued, uploading.seq)
            self._watch.uploads.discard(record.id)
            self._catalogue.heard(queued, seq)
            return queued

        async def drop() -> None:
            assert uploading is not None
            self._watch.uploads.discard(record.id)
            await self._bury(uploading.record)

        return Upload(
            self.store,
            record,
            earlier=earlier,
            digest=earlier.digest if earlier is not None else "",
            grow=grow,
            done=done,
            drop=drop,
        )

    async def _claim_key(self, key: str, job: str) -> Record | None:
        """Takes the key for a new job, or returns the one that has it. Raises KeyBusy."""
        me = self._dispatcher.id
        while True:
            known, seq = await self.store.read_key(key)
            if known is not None:
                record, _ = await self.store.read(known.job)
                state = None if record is None else record.state
                if record is not None and state not in ("uploading", "deleted"):
                    return record
                uploaded_here = known.job in self._watch.uploads
                elsewhere = known.owner != me and await self.store.has_lease(known.owner)
                if state != "deleted" and (uploaded_here or elsewhere):
                    raise KeyBusy("the first request with this idempotency key is still uploading")
                if record is not None:
                    await self.store.remove(record.id)
                    await self.store.forget(record.id)
            try:
                await self.store.write_key(key, KeyRecord(job=job, owner=me), seq, KEY_SECONDS)
            except Conflict:
                continue
            return None

    # Room in the store

    async def _reserve(self, uploading: _Uploading, wanted: int) -> None:
        """Writes a larger reservation down, then looks whether all of them fit."""
        record = uploading.record
        if uploading.fixed and wanted > record.reserved:
            raise StoreFull(
                f"the input takes more than the {record.reserved:,} bytes that were reserved",
                limit=record.reserved,
                used=record.reserved,
                wanted=wanted,
            )
        grown = replace(record, reserved=wanted, updated=time.time())
        uploading.seq = await self.store.write(grown, uploading.seq)
        uploading.record = grown
        self._catalogue.heard(grown, uploading.seq)
        try:
            limit, used = self._options.store.max_bytes, self._catalogue.reserved()
            if used > limit:
                raise _full(limit, used - wanted, wanted)
        except StoreFull:
            await self._bury(grown)
            raise

    async def _room(self, record: Record, stored: int) -> int:
        """The reservation of a job that needs more than it has. Raises StoreFull."""
        wanted = 2 * stored
        others = self._catalogue.reserved() - record.reserved
        limit = self._options.store.max_bytes
        if others + stored > limit:
            raise _full(limit, others, stored)
        return min(wanted, limit - others)

    # Looking

    async def get(self, id: str) -> Record:
        """A job's record, as the leader has it. Raises UnknownJob."""
        self._check()
        record, seq = await self.store.read(id) if subjects.TOKEN.fullmatch(id) else (None, 0)
        if record is not None and record.state not in ("uploading", "deleted"):
            self._catalogue.heard(record, seq)
            return record
        if record is None and seq:
            return Record(id=id, function="", format="json", state="expired")
        raise UnknownJob(f"there is no job {id!r}, or no longer")

    async def list(
        self,
        *,
        states: Collection[State] = (),
        function: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[list[Record], str | None]:
        """Jobs, newest first, and what ``after`` is for the next page, or None."""
        self._check()
        await self._watch.catch_up()
        return self._catalogue.listed(states, function, limit, after)

    def outcomes(self, record: Record) -> Outcomes:
        """A reader of what is stored of its outcomes."""
        fold = self._folds.pop(record.id, None) or Fold()
        self._folds[record.id] = fold
        if len(self._folds) > FOLDS_KEPT:
            self._folds.popitem(last=False)
        return Outcomes(self.store, record.id, record.format, fold)

    async def changed(self, id: str, timeout: float) -> Record:
        """The record when it or the outcomes may have changed, at the latest after ``timeout``
        seconds (or half a second, so that nothing is missed)."""
        await self._watch.stirred(id, min(timeout, LOOK_SECONDS))
        return await self.get(id)

    # Ending

    async def cancel(self, id: str) -> Record:
        """Ends a job; its cores are free at once. One that is over stays as it is."""
        while True:
            record = await self.get(id)
            if record.is_over:
                return record
            seq = self._catalogue.seq(id)
            now = time.time()
            cancelled = replace(
                record,
                state="cancelled",
                owner="",
                finished=now,
                updated=now,
                stored=record.stored - record.input_bytes,
                reserved=record.stored - record.input_bytes,
            )
            try:
                seq = await self.store.write(cancelled, seq, ttl=record.ttl)
            except Conflict:
                continue
            self._catalogue.heard(cancelled, seq)
            if record.epoch:
                await self._dispatcher.recall(subjects.job_map(id, record.epoch))
            await self.store.remove_input(id)
            return cancelled

    async def delete(self, id: str) -> None:
        """Ends a job and removes all of it. Raises UnknownJob."""
        record = await self.cancel(id)
        await self._bury(record)

    async def _bury(self, record: Record) -> None:
        """Removes a job. For a minute a record says so: outcomes that come late go too."""
        while True:
            _, seq = await self.store.read(record.id)
            gone = replace(
                record,
                state="deleted",
                owner="",
                reserved=0,
                kwargs=b"",
                updated=time.time(),
                ttl=TOMBSTONE_SECONDS,
            )
            try:
                seq = await self.store.write(gone, seq, ttl=TOMBSTONE_SECONDS)
            except Conflict:
                continue
            break
        self._catalogue.heard(gone, seq)
        self._folds.pop(record.id, None)
        await self.store.remove(record.id)
        if record.key:
            await self.store.forget_key(record.key)

    # Inside

    def _heard(self, record: Record) -> None:
        self._carrier.heard(record)
        self._watch.stir(record.id)

    def _check(self) -> None:
        if self._options.refusal is not None:
            raise JobsUnavailable(self._options.refusal)

    async def _ensure(self) -> None:
        self._check()
        if self._watch.is_loaded:
            return
        try:
            await streams.ensure(self._connection, self.store.pool, self._options.store)
        except JetStreamError as error:
            raise JobsUnavailable(f"jobs need file storage in the NATS server: {error}") from error
        await self._watch.load()


@dataclass
class _Uploading:
    """fixed: whether the caller said how much to reserve."""

    record: Record
    seq: int
    fixed: bool


def _full(limit: int, used: int, wanted: int) -> StoreFull:
    return StoreFull(
        f"the job store is full: {used:,} of {limit:,} bytes (job_store_bytes) are taken or "
        f"reserved, and this job needs {wanted:,}; delete jobs that are over, or raise the limit",
        limit=limit,
        used=used,
        wanted=wanted,
    )
