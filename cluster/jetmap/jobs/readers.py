"""Reading jobs for many at once: what one reader of a job asks of the store serves all others.

A ``SharedReader`` exists once a job and process, from its first reader to its last. It learns by
notification what was stored, remembers at which places there is nothing more, and joins equal
questions. So requests to the store do not grow with the number of readers, and a reader that is
slow holds nothing but its own place.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from jetmap.errors import BrokerUnreachable, JetmapError, UnknownJob

from .message_cache import MessageCache, Request
from .outcome_index import Fold
from .outcomes import Messages, Outcomes
from .record import Record
from .store import FETCH_BYTES, FETCH_MESSAGES, Stored

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # Between looks for outcomes whose notification was lost.
AWAY_SECONDS = 10.0  # Without an answer of the broker, after which readers are given an error.
LAG_SECONDS = 5.0  # How long a replica may lack an outcome that was announced.
LAG_EVERY = 0.1
CACHE_BYTES = 32 << 20  # Of messages that were just read, of all jobs together.


class Listening(Protocol):
    """A subscription."""

    async def unsubscribe(self) -> None: ...


class Source(Messages, Protocol):
    """The part of the store that readers need."""

    async def last_outcome(self) -> int:
        """The sequence number of what was stored last of all jobs' outcomes."""
        ...

    async def listen(self, job: str, on_stored: Callable[[int], None]) -> Listening:
        """Have ``on_stored`` called with the sequence number of each message of the job."""
        ...


class Readers:
    """All readers of this process.

    get: asks the leader for a job's record, raises UnknownJob. known: the newest that was heard
    of. fold: the index of a job's outcomes, which its readers share.
    """

    def __init__(
        self,
        source: Source,
        get: Callable[[str], Awaitable[Record]],
        known: Callable[[str], Record | None],
        fold: Callable[[str], Fold],
    ) -> None:
        self.source = source
        self._get = get
        self._known = known
        self._fold = fold
        self._shared: dict[str, SharedReader] = {}
        self._cache = MessageCache(CACHE_BYTES)
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._seen = 0  # The stream's last message at the last look.
        self._silent_since: float | None = None

    def __len__(self) -> int:
        """Jobs that are read."""
        return len(self._shared)

    @property
    def waiting(self) -> int:
        """Readers that wait for news."""
        return sum(shared.waiting for shared in self._shared.values())

    def open(self, record: Record) -> JobReader:
        """A reader of a job, to be closed."""
        shared = self._shared.get(record.id)
        if shared is None:
            newest = self._known(record.id) or record
            shared = self._shared[record.id] = SharedReader(newest, self.source, self._cache)
        shared.users += 1
        return JobReader(self, shared, record, self._fold(record.id))

    def close_one(self, shared: SharedReader) -> None:
        """One reader of a job fewer; with the last one what they shared ends."""
        shared.users -= 1
        if shared.users:
            return
        if self._shared.get(shared.job) is shared:
            del self._shared[shared.job]
        self._cache.drop(shared.job)
        if shared.listening is not None:
            self._spawn(shared.listening.unsubscribe())
            shared.listening = None
        if self._looking is not None and not any(s.listening for s in self._shared.values()):
            self._looking.cancel()
            self._looking = None

    async def follow(self, shared: SharedReader) -> None:
        """Have the reader woken by what is stored from now on."""
        async with shared.starting:
            if shared.listening is not None or not shared.users:
                return
            shared.listening = await self.source.listen(shared.job, shared.on_stored)
            if not shared.users:  # The last reader has left meanwhile.
                await shared.listening.unsubscribe()
                shared.listening = None
                return
            shared.wake()  # What was stored before it is known to nobody.
        if self._looking is None:
            self._looking = self._spawn(self._look())

    def on_record(self, record: Record) -> None:
        """A job's record has changed."""
        shared = self._shared.get(record.id)
        if shared is not None:
            shared.on_record(record)

    async def on_reconnect(self) -> None:
        """Ask again for everything: what was stored meanwhile, nobody has announced here."""
        for shared in list(self._shared.values()):
            if shared.listening is not None:
                await self._check(shared)

    async def close(self) -> None:
        """End all that runs here."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self) -> None:
        """One question for all jobs: is there anything that was not announced?"""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                last = await self.source.last_outcome()
            except BrokerUnreachable as error:
                self._on_silence(error)
                continue
            except JetmapError as error:
                logger.debug("outcomes are looked for again later: %s", error)
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
                logger.warning("%d readers of jobs are given up: %s", self.waiting, error)
            for shared in self._shared.values():
                shared.fail(error)

    async def _check(self, shared: SharedReader) -> None:
        try:
            shared.on_record(await self._get(shared.job))
            shared.wake()
        except UnknownJob as error:
            shared.fail(error)
        except JetmapError as error:
            logger.debug("job %s is looked at again later: %s", shared.job, error)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("reading jobs: %r", error)


class SharedReader:
    """What all readers of one job share.

    version: grows with all news; who has seen it knows that there was nothing more. It has the
    interface of the store that ``Outcomes`` reads.
    """

    def __init__(self, record: Record, source: Source, cache: MessageCache) -> None:
        self.job = record.id
        self.record = record
        self.pool = source.pool
        self.users = 0
        self.waiting = 0
        self.version = 0
        self._error: tuple[int, JetmapError] | None = None  # Under which version it came.
        self.listening: Listening | None = None
        self.starting = asyncio.Lock()
        self._source = source
        self._cache = cache
        self._news = asyncio.Event()
        self._empty: dict[int, int] = {}  # Place behind which there is nothing, and version.
        self._announced = 0
        self._announced_at = 0.0
        self._woken = 0  # The version at the last look of ``Readers``.
        self._flights: dict[tuple[Request, int], asyncio.Task[list[Stored]]] = {}
        self._counting: asyncio.Task[tuple[int, int]] | None = None
        self._counted: asyncio.Task[tuple[int, int]] | None = None

    @property
    def may_grow(self) -> bool:
        """Whether outcomes may come: somebody has carried the job."""
        return not self.record.is_over and self.record.epoch > 0

    def on_stored(self, seq: int) -> None:
        """Outcomes were stored under this sequence number."""
        self._announced = max(self._announced, seq)
        self._announced_at = time.monotonic()
        self.wake()

    def on_record(self, record: Record) -> None:
        if record != self.record:
            self.record = record
            self.wake()

    def fail(self, error: JetmapError) -> None:
        """Have every reader that waits raise this."""
        if self.waiting:
            self.wake()
            self._error = self.version, error

    def check(self, seen: int) -> None:
        """Raise what failed after version ``seen``."""
        if self._error is not None and self._error[0] > seen:
            raise copy.copy(self._error[1])  # Thousands would add to one traceback.

    def wake(self) -> None:
        self.version += 1
        self._empty.clear()
        self._news.set()
        self._news = asyncio.Event()

    def wake_if_idle(self) -> None:
        """Unless there was news since this was called the last time."""
        if self.version == self._woken:
            self.wake()
        self._woken = self.version

    async def wait(self, seen: int, timeout: float | None) -> None:
        """Until there is news after version ``seen``."""
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
    ) -> list[Stored]:
        """The next messages; one request for all who ask the same."""
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
            flight.add_done_callback(lambda _: self._landed(request, version))
        return await asyncio.shield(flight)

    async def _ask(self, kind: str, subject: str, request: Request, version: int) -> list[Stored]:
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

    def _landed(self, request: Request, version: int) -> None:
        flight = self._flights.pop((request, version))
        if not flight.cancelled():
            flight.exception()  # Those who asked may all have left.

    async def size(self, kind: str, subject: str) -> tuple[int, int]:
        """As the leader counts; never from before the call."""
        flight = self._counting
        if flight is None:
            coroutine = self._count(kind, subject, self._counted)
            flight = asyncio.get_running_loop().create_task(coroutine)
            flight.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._counting = self._counted = flight
        return await asyncio.shield(flight)

    async def _count(
        self, kind: str, subject: str, previous: asyncio.Task[tuple[int, int]] | None
    ) -> tuple[int, int]:
        if previous is not None and not previous.done():
            await asyncio.wait({previous})
        self._counting = None  # Who asks from here on gets a later answer.
        return await self._source.size(kind, subject)


class JobReader:
    """One reader of one job. outcomes: reads what is stored; record: the last that was seen."""

    def __init__(self, readers: Readers, shared: SharedReader, record: Record, fold: Fold) -> None:
        self.record = record
        self.outcomes = Outcomes(shared, record.id, record.format, fold)
        self._readers = readers
        self._shared = shared
        # What changed since the record was read, nobody will tell again.
        self._seen = shared.version if shared.record == record else -1
        self._is_open = True

    async def changed(self, timeout: float | None = None) -> Record:
        """Wait until the record or the outcomes may have changed since this was called last.

        Raises UnknownJob: it was deleted; BrokerUnreachable: the broker has been away for long.
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
        self.record = record
        return record

    def close(self) -> None:
        """Twice is harmless."""
        if self._is_open:
            self._is_open = False
            self._readers.close_one(self._shared)
