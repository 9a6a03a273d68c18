"""The jobs of a pool, as gateways and callers use them: submit, inspect, read, cancel, remove."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Unpack

from jetmap import bounds
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.dispatch.tolerance import Tolerance
from jetmap.errors import (
    JetmapError,
    JobOver,
    JobsUnavailable,
    NoRoom,
    NoWorkers,
    UnknownJob,
    WorkerStartFailed,
)
from jetmap.nats.answers import JetStreamError, lacks_room
from jetmap.nats.broker import Broker
from jetmap.settings import Settings
from jetmap.wire import subjects
from jetmap.wire.messages import Format

from . import idempotency, streams, transitions
from .cancelling import Cancelling
from .catalogue import NO_LABELS, Catalogue
from .causes import StoredCauses, stored_causes
from .changes import JobChanges, JobSteering, new_values
from .monitor import JobMonitor
from .outcome_index import OutcomeIndex, OutcomeIndexes
from .outcomes import StoredOutcomes
from .quota import FIRST_RESERVATION, Quota
from .readers import JobReader, Readers
from .record import JobState, Record, check_readable
from .removal import Removal
from .retrying import Retrying
from .room import FULL
from .runner import JobRunner
from .store import Conflict, Store
from .submitting import Submitting
from .upload import Upload

logger = logging.getLogger(__name__)

# Seconds for releasing jobs when closing.
CLOSE_SECONDS = 2.0
# Bytes of outcome indexes kept between requests.
INDEX_BYTES = 64 << 20


class Jobs:
    """The jobs of one pool. Once started, this process also runs them.

    store: the streams that hold the jobs. refusal: why jobs are unavailable, if they are.
    """

    def __init__(
        self,
        connection: Broker,
        dispatcher: Dispatcher,
        settings: Settings,
        *,
        refusal: str | None = None,
    ) -> None:
        self._connection = connection
        self._dispatcher = dispatcher
        self._settings = settings.jobs
        self._refusal = refusal
        self.store = Store(connection, settings.broker.pool, self._make_streams)
        self._catalogue = Catalogue(self._on_record)
        self._runner = JobRunner(
            dispatcher,
            self.store,
            self._catalogue,
            weight=self._settings.job_weight,
            most=self._settings.max_running_jobs,
            grant_room=self._grant_room,
        )
        dispatcher.count_parked(self._runner.parked)
        self._removal = Removal(self.store, self._catalogue)
        self._monitor = JobMonitor(
            self.store, dispatcher.id, self._catalogue, self._runner, self._removal
        )
        self._quota = Quota(
            self.store, self._catalogue, self._settings.job_store_bytes, self._monitor.catch_up
        )
        self._submitting = Submitting(
            self.store,
            self._catalogue,
            dispatcher.id,
            monitor=self._monitor,
            removal=self._removal,
            quota=self._quota,
            room=lambda: connection.room,
        )
        self._is_limit_known = False
        self._indexes = OutcomeIndexes(INDEX_BYTES)
        self._cancelling = Cancelling(
            self.store,
            self._catalogue,
            dispatcher,
            self._monitor.background,
            get=self.get,
            outcomes=self.outcomes,
        )
        self._retrying = Retrying(
            self.store, self._catalogue, dispatcher.id, get=self.get, outcomes=self.outcomes
        )
        self._readers = Readers(self.store, self.get, self._catalogue.get, self._index)

    async def start(self) -> None:
        """Run the pool's jobs, present and future. Raises only BrokerUnreachable."""
        if self._refusal is None:
            self._connection.on_reconnect(self._readers.on_reconnect)
            await self._monitor.start()

    async def close(self) -> None:
        """Release the jobs that run here, so that other processes take over at once.

        If the broker does not answer, they take over when this process's lease has expired.
        """
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._runner.close()
        except TimeoutError:
            logger.info("the broker does not answer: others take over when the lease has expired")
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._monitor.close()
                await self._readers.close()
        except TimeoutError:
            pass

    def waiting(self) -> list[Record]:
        """Return the jobs here that have no open map: they wait for workers or a turn."""
        return self._runner.waiting()

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
        causes: bool = False,
        max_failed: int | str | None = None,
        values: bool = True,
        labels: dict[str, str] | None = None,
        max_parallel: int | None = None,
    ) -> Upload:
        """Begin a job's upload.

        caller, key: the submitter, and its idempotency key. ttl: seconds that the job is kept
        after its end. timeout: seconds for the whole job. reserve: the most bytes of the store
        that its input and outcomes may take; None: what they need, while there is room. causes:
        whether the submitter unpickles exceptions. max_failed: items that may fail, or their
        share. values: whether the function's values are stored. labels: checked ones, by which
        people find it. max_parallel: cores that it may use at most. Raises UnknownFunction,
        KeyBusy, StoreFull, JobsUnavailable, TooLarge, BrokerUnreachable.
        """
        ttl = bounds.TTL.check_optional("ttl", ttl)
        timeout = bounds.TIMEOUT.check_optional("timeout", timeout)
        reserve = bounds.SIZE.check_optional("reserve", reserve)
        tolerance = Tolerance.of(max_failed)
        self._dispatcher.check_overhead(len(kwargs))
        await self._ensure()
        await self._ask_limit()
        try:
            await self._dispatcher.agents.find(function, None, 1.0)
        except (NoWorkers, WorkerStartFailed) as error:
            logger.info("a job for %r waits for workers: %s", function, error)
        digest = "" if key is None else idempotency.digest(caller, key)
        record = Record(
            id=subjects.new_id(12).replace("_", "a").replace("-", "b"),
            function=function,
            format=format,
            kwargs=kwargs,
            caller=caller,
            key=digest,
            owner=self._dispatcher.id,
            created=time.time(),
            ttl=self._settings.job_ttl if ttl is None else ttl,
            timeout=timeout,
            reserved=reserve or FIRST_RESERVATION,
            is_fixed=reserve is not None,
            causes=causes,
            max_failed=None if tolerance is None else tolerance.text,
            values=values,
            submitted="" if self._dispatcher.traces is None else self._dispatcher.traces.current(),
            labels=labels or {},
            max_parallel=max_parallel,
        )
        return await self._submitting.begin(record)

    async def _grant_room(
        self, record: Record, stored: int, write: Callable[[Record], Awaitable[int]]
    ) -> int:
        return await self._quota.room(record, stored, write)

    # Looking

    async def get(self, id: str) -> Record:
        """Read a job's record from the leader. Raises UnknownJob."""
        self._check()
        record, seq = await self.store.read(id) if subjects.TOKEN.fullmatch(id) else (None, 0)
        if record is not None and record.state not in ("uploading", "deleted"):
            self._catalogue.on_record(record, seq)
            return self._shown(record)
        if record is None and seq:
            self._indexes.drop(id)
            return Record(id=id, function="", format="json", state="expired")
        raise UnknownJob(f"there is no job {id!r}, or no longer")

    async def list(
        self,
        *,
        states: Collection[JobState] = (),
        function: str | None = None,
        limit: int = 100,
        after: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
    ) -> tuple[list[Record], str | None]:
        """Return a page of jobs, newest first, and the ``after`` of the next page, if there is one.

        labels: those that each has.

        Raises ValueError if ``after`` is not valid.
        """
        self._check()
        await self._monitor.catch_up()
        records, token = self._catalogue.page(states, function, limit, after, labels)
        return [self._shown(record) for record in records], token

    def outcomes(self, record: Record) -> StoredOutcomes:
        """Return a reader of the stored outcomes of the record's run."""
        return StoredOutcomes(self.store, record.id, record.format, self._index(record))

    async def causes(self, record: Record) -> StoredCauses:
        """Return the causes of a job's failures, as the store has them."""
        return await stored_causes(self.store, self.outcomes(record), record)

    def reader(self, record: Record) -> JobReader:
        """Return a reader that shares its work with the job's others; the caller closes it."""
        return self._readers.open(record)

    def _index(self, record: Record) -> OutcomeIndex:
        return self._indexes.get(record.id, record.run, record.ends)

    # Running again, ending

    async def retry(self, id: str) -> Record:
        """Start the next run of a job that is over: of its items that failed or have no outcome.

        Raises UnknownJob, JobNotRetryable, JobEnded if it has expired, JobUnreadable.
        """
        await self._monitor.hold_lease()
        return await self._retrying.retry(id)

    async def steer(self, id: str, **wishes: Unpack[JobSteering]) -> Record:
        """Pause or resume a job, or limit its cores. A finished job stays as it is."""
        return await self._rewrite(id, lambda record: transitions.steered(record, wishes))

    async def update(self, id: str, changes: JobChanges) -> Record:
        """Change the limits and labels of a job.

        Raises UnknownJob, JobOver, JobUnreadable; TypeError or ValueError for a wrong value.
        """

        def changed(record: Record) -> Record:
            return transitions.steered(record, new_values(record, changes))

        record = await self._rewrite(id, changed)
        if record.is_over:
            raise JobOver(
                f"job {id} is over ({record.public_state}): nothing of it changes any more"
            )
        return record

    async def _rewrite(self, id: str, change: Callable[[Record], Record]) -> Record:
        """Change the record of a job unless it is over, and return it."""
        while True:
            check_readable(await self.get(id))
            record, seq = await self.store.read(id)
            if record is None or record.is_over:
                return await self.get(id)
            new = change(record)
            if new is record:
                return self._shown(record)
            try:
                seq = await self.store.write(new, seq)
            except Conflict:
                continue
            self._catalogue.on_record(new, seq)
            return self._shown(new)

    async def cancel(self, id: str) -> Record:
        """End a job and free its cores at once. A finished job stays as it is."""
        return await self._cancelling.cancel(id)

    async def delete(self, id: str) -> None:
        """End a job and remove it entirely. Raises UnknownJob."""
        if (await self.get(id)).state != "unreadable":
            try:
                await self._cancelling.end(id)
            except NoRoom as error:
                logger.info("job %s is removed without being cancelled first: %s", id, error)
        while True:
            there, seq = await self.store.read(id)
            if there is None:
                await self.store.forget(id, seq)  # The marker of its expiry.
                return
            if there.state == "deleted" or await self._removal.tombstone(there, seq):
                return

    # Inside

    def _shown(self, record: Record) -> Record:
        """Return the record for callers: a job waits for room if records cannot be written."""
        if self.store.takes_records or record.state != "running" or record.waiting_for:
            return record
        return transitions.as_waiting(record, transitions.ROOM, FULL, record.updated)

    def _on_record(self, record: Record) -> None:
        if record.state in ("deleted", "expired"):
            self._indexes.drop(record.id)
        self._runner.on_record(record)
        self._readers.on_record(record)

    def _check(self) -> None:
        if self._refusal is not None:
            raise JobsUnavailable(self._refusal)

    async def _ask_limit(self) -> None:
        """Ask the broker once how much its account may store."""
        if self._is_limit_known:
            return
        try:
            limits = (await self._connection.api("INFO"))["limits"]
        except (JetmapError, KeyError) as error:
            logger.debug("cannot read the limits of the broker's account: %s", error)
            return
        self._is_limit_known = True
        if (most := int(limits.get("max_storage", -1))) > 0:
            self._quota.cap(most)

    async def _make_streams(self) -> None:
        await streams.ensure(self._connection, self.store, self._settings)

    async def _ensure(self) -> None:
        self._check()
        if self._monitor.is_loaded:
            return
        try:
            await self._make_streams()
        except JetStreamError as error:
            if lacks_room(error):
                raise await self.store.no_room(error, 0) from error
            raise JobsUnavailable(f"jobs need file storage in the NATS server: {error}") from error
        await self._monitor.load()
