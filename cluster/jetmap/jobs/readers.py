"""Share reads of a job: one request to the store serves every reader of the job.

A process has one ``SharedReader`` for each job, from its first reader to its last. Notifications
tell it what was stored; it remembers positions with nothing after them, and joins equal requests.
So requests to the store do not grow with the number of readers, and a slow reader holds nothing
but its own position.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from jetmap.background import Background
from jetmap.errors import BrokerUnreachable, JetmapError, UnknownJob

from .message_cache import MessageCache, Request
from .outcome_index import OutcomeIndex
from .outcomes import Messages, StoredOutcomes
from .record import Record
from .store import FETCH_BYTES, FETCH_MESSAGES, StoredMessage

logger = logging.getLogger(__name__)

# Seconds between looks for outcomes whose notification was lost.
LOOK_SECONDS = 2.0
# Seconds without an answer from the broker, after which waiting readers fail.
AWAY_SECONDS = 10.0
# Seconds that a replica may lag behind a notification.
LAG_SECONDS = 5.0
# Seconds between looks at a replica that lags.
LAG_EVERY = 0.1
# Bytes of recently read messages, for all jobs together.
CACHE_BYTES = 32 << 20


class Listening(Protocol):
    """A subscription."""

    async def unsubscribe(self) -> None: ...


class OutcomeSource(Messages, Protocol):
    """The part of the store that readers need."""

    async def last_outcome(self) -> int:
        """Return the sequence number of the newest outcome of any job."""
        ...

    async def listen(self, job: str, on_stored: Callable[[int], None]) -> Listening:
        """Call ``on_stored`` with the sequence number of each stored outcome of the job."""
        ...


class Readers:
    """All readers of this process.

    get: reads a job's record from the leader; raises UnknownJob. known: the newest known record.
    index: the index of the outcomes of a record's run, which its readers share.
    """

    def __init__(
        self,
        source: OutcomeSource,
        get: Callable[[str], Awaitable[Record]],
        known: Callable[[str], Record | None],
        index: Callable[[Record], OutcomeIndex],
    ) -> None:
        self.source = source
        self._get = get
        self._known = known
        self._index = index
        self._shared: dict[str, SharedReader] = {}
        self._cache = MessageCache(CACHE_BYTES)
        self._looking: asyncio.Task[None] | None = None
        self._background = Background("readers of jobs")
        self._seen = 0  # The stream's last message at the last look.
        self._silent_since: float | None = None

    def __len__(self) -> int:
        """The number of jobs with a reader."""
        return len(self._shared)

    @property
    def waiting(self) -> int:
        """The number of readers that wait for a change."""
        return sum(shared.waiting for shared in self._shared.values())

    def open(self, record: Record) -> JobReader:
        """Open a reader of the record's run of a job, which the caller must close."""
        shared = self._shared.get(record.id)
        if shared is None:
            known = self._known(record.id)
            newest = record if known is None or known.run < record.run else known
            shared = self._shared[record.id] = SharedReader(newest, self.source, self._cache)
        shared.users += 1
        return JobReader(self, shared, record, self._index(record))

    def close_one(self, shared: SharedReader) -> None:
        """Release one reader of a job, and with the last one everything they share."""
        shared.users -= 1
        if shared.users:
            return
        if self._shared.get(shared.job) is shared:
            del self._shared[shared.job]
        self._cache.drop(shared.job)
        if shared.listening is not None:
            self._background.spawn(shared.listening.unsubscribe(), "unsubscribe")
            shared.listening = None
        if self._looking is not None and not any(s.listening for s in self._shared.values()):
            self._looking.cancel()
            self._looking = None

    async def follow(self, shared: SharedReader) -> None:
        """Wake the job's readers at each outcome stored from now on."""
        async with shared.starting:
            if shared.listening is not None or not shared.users:
                return
            shared.listening = await self.source.listen(shared.job, shared.on_stored)
            if not shared.users:  # The last reader has left meanwhile.
                await shared.listening.unsubscribe()
                shared.listening = None
                return
            shared.wake()  # Nobody has announced what was stored before.
        if self._looking is None:
            self._looking = self._background.spawn(self._look(), "look for outcomes")

    def on_record(self, record: Record) -> None:
        """Pass a changed record on to the job's readers."""
        shared = self._shared.get(record.id)
        if shared is not None:
            shared.on_record(record)

    async def on_reconnect(self) -> None:
        """Look at every job again: notifications were missed."""
        for shared in list(self._shared.values()):
            if shared.listening is not None:
                await self._check(shared)

    async def close(self) -> None:
        """Cancel the background tasks."""
        await self._background.close()

    async def _look(self) -> None:
        """Look for unannounced outcomes, with one request for all jobs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                last = await self.source.last_outcome()
            except BrokerUnreachable as error:
                self._on_silence(error)
                continue
            except JetmapError as error:
                logger.debug("cannot look for outcomes; trying again later: %s", error)
                continue
            self._silent_since = None
            moved, self._seen = last != self._seen, last
            for shared in list(self._shared.values()):
                if moved and shared.listening is not None and shared.may_grow:
                    shared.wake_if_idle()

    def _on_silence(self, error: BrokerUnreachable) -> None:
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= AWAY_SECONDS:
            if self.waiting:
                logger.warning("failing %d waiting readers of jobs: %s", self.waiting, error)
            for shared in self._shared.values():
                shared.fail(error)

    async def _check(self, shared: SharedReader) -> None:
        try:
            shared.on_record(await self._get(shared.job))
            shared.wake()
        except UnknownJob as error:
            shared.fail(error)
        except JetmapError as error:
            logger.debug("cannot read job %s; trying again later: %s", shared.job, error)


class SharedReader:
    """The state that all readers of one job share, with the interface that ``Outcomes`` reads.

    version: grows with each change, so a reader that has seen it has missed nothing.
    """

    def __init__(self, record: Record, source: OutcomeSource, cache: MessageCache) -> None:
        self.job = record.id
        self.record = record
        self.pool = source.pool
        self.users = 0
        self.waiting = 0
        self.version = 0
        self._error: tuple[int, JetmapError] | None = (
            None  # The version at which it occurred, and the error.
        )
        self.listening: Listening | None = None
        self.starting = asyncio.Lock()
        self._source = source
        self._cache = cache
        self._news = asyncio.Event()
        self._empty: dict[int, int] = {}  # Positions with nothing after them, and the version then.
        self._announced = 0
        self._announced_at = 0.0
        self._woken = 0  # The version at the last call of ``wake_if_idle``.
        self._flights: dict[tuple[Request, int], asyncio.Task[list[StoredMessage]]] = {}
        self._counting: asyncio.Task[tuple[int, int]] | None = None
        self._counted: asyncio.Task[tuple[int, int]] | None = None

    @property
    def may_grow(self) -> bool:
        """Return whether outcomes may arrive: the job has started and is not over."""
        return not self.record.is_over and self.record.epoch > 0

    def on_stored(self, seq: int) -> None:
        """Wake the readers: an outcome was stored with this sequence number."""
        self._announced = max(self._announced, seq)
        self._announced_at = time.monotonic()
        self.wake()

    def on_record(self, record: Record) -> None:
        if record != self.record:
            self.record = record
            self.wake()

    def fail(self, error: JetmapError) -> None:
        """Raise an error in every waiting reader."""
        if self.waiting:
            self.wake()
            self._error = self.version, error

    def check(self, seen: int) -> None:
        """Raise the error that occurred after version ``seen``, if any."""
        if self._error is not None and self._error[0] > seen:
            raise copy.copy(
                self._error[1]
            )  # A copy: thousands of readers would extend one traceback.

    def wake(self) -> None:
        self.version += 1
        self._empty.clear()
        self._news.set()
        self._news = asyncio.Event()

    def wake_if_idle(self) -> None:
        """Wake the readers, unless something else has since the last call."""
        if self.version == self._woken:
            self.wake()
        self._woken = self.version

    async def wait(self, seen: int, timeout: float | None) -> None:
        """Wait for a version after ``seen``, or until the timeout."""
        if self.version != seen:
            return
        self.waiting += 1
        try:
            if timeout is None:
                await self._news.wait()
            else:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1

    async def fetch(
        self,
        kind: str,
        subject: str,
        after: int,
        *,
        messages: int = FETCH_MESSAGES,
        max_bytes: int = FETCH_BYTES,
    ) -> list[StoredMessage]:
        """Read the next messages, with one request for all readers that want the same."""
        version = self.version
        if self.listening is not None and self._empty.get(after) == version:
            return []
        request = (self.job, after, messages, max_bytes)
        known = self._cache.get(request)
        if known is not None:
            return known
        flight = self._flights.get((request, version))
        if flight is None:
            coroutine = self._ask(kind, subject, request, version)
            flight = asyncio.get_running_loop().create_task(coroutine)
            self._flights[request, version] = flight
            flight.add_done_callback(lambda _: self._on_answer(request, version))
        return await asyncio.shield(flight)

    async def _ask(
        self, kind: str, subject: str, request: Request, version: int
    ) -> list[StoredMessage]:
        _, after, messages, max_bytes = request
        found = await self._source.fetch(
            kind, subject, after, messages=messages, max_bytes=max_bytes
        )
        if found:
            self._cache.put(request, found)
        elif after < self._announced:
            # The replica that answered lags behind the one that announced it.
            if time.monotonic() - self._announced_at < LAG_SECONDS:
                asyncio.get_running_loop().call_later(LAG_EVERY, self.wake)
        elif self.version == version:
            self._empty[after] = version
        return found

    def _on_answer(self, request: Request, version: int) -> None:
        flight = self._flights.pop((request, version))
        if not flight.cancelled():
            flight.exception()  # All its readers may have left.

    async def size(self, kind: str, subject: str) -> tuple[int, int]:
        """Ask the leader; the answer is never older than the call."""
        flight = self._counting
        if flight is None:
            coroutine = self._count(kind, subject, self._counted)
            flight = asyncio.get_running_loop().create_task(coroutine)
            flight.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._counting = self._counted = flight
        return await asyncio.shield(flight)

    async def last_outcome(self) -> int:
        """Ask the leader for the newest outcome of any job."""
        return await self._source.last_outcome()

    async def _count(
        self, kind: str, subject: str, previous: asyncio.Task[tuple[int, int]] | None
    ) -> tuple[int, int]:
        if previous is not None and not previous.done():
            await asyncio.wait({previous})
        self._counting = None  # Later callers need a later answer.
        return await self._source.size(kind, subject)


class JobReader:
    """One reader of one run of a job.

    outcomes: reads the stored outcomes. record: the last one seen, as of that run.
    """

    def __init__(
        self, readers: Readers, shared: SharedReader, record: Record, index: OutcomeIndex
    ) -> None:
        self.record = record
        self.outcomes = StoredOutcomes(shared, record.id, record.format, index)
        self._readers = readers
        self._shared = shared
        # Changes since the record was read are not announced again.
        self._seen = shared.version if shared.record == record else -1
        self._is_open = True
        self._limit(shared.record)

    async def changed(self, timeout: float | None = None) -> Record:
        """Wait until the record or the outcomes may have changed since this was called last.

        Raises UnknownJob if the job was deleted, BrokerUnreachable if the broker was away too long.
        """
        shared = self._shared
        if shared.listening is None:
            await self._readers.follow(shared)
        await shared.wait(self._seen, timeout)
        before, self._seen = self._seen, shared.version
        shared.check(before)
        record = shared.record
        if record.state == "deleted":
            raise UnknownJob(f"there is no job {record.id!r}, or no longer")
        self._limit(record)
        self.record = record.as_of(self.record.run)
        return self.record

    def _limit(self, newest: Record) -> None:
        """Read no further than this run's end, once a later run has begun."""
        index, run = self.outcomes.index, self.record.run
        if index.until is None and run < newest.run and newest.past:
            index.until = newest.past[run - 1].last

    def close(self) -> None:
        """Release the reader. Closing it again is harmless."""
        if self._is_open:
            self._is_open = False
            self._readers.close_one(self._shared)
