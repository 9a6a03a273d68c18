"""Jobs in memory, with the interface of ``jetmap.jobs.service.Jobs``: for tests of its callers.

What is stored is real: reports in a stream, which the real ``StoredOutcomes`` reads. Functions are
those of a ``FakeCluster``; an ``async def`` is awaited, so that a test can hold an item.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Unpack

import msgspec

from fake_cluster import DECODE, ENCODE, FakeCluster
from jetmap import Cluster, JobsUnavailable
from jetmap.dispatch.tolerance import Tolerance
from jetmap.errors import (
    BrokerUnreachable,
    JobNotRetryable,
    JobOver,
    KeyBusy,
    KeyReused,
    StoreFull,
    UnknownFunction,
    UnknownJob,
)
from jetmap.jobs import transitions
from jetmap.jobs.catalogue import NO_LABELS
from jetmap.jobs.causes import StoredCauses, stored_causes
from jetmap.jobs.changes import JobChanges, JobSteering, new_values
from jetmap.jobs.outcome_index import OutcomeIndex
from jetmap.jobs.outcomes import StoredOutcomes
from jetmap.jobs.readers import JobReader, Readers
from jetmap.jobs.record import OVER, JobState, Record
from jetmap.jobs.store import Store, StoredMessage
from jetmap.nats.connection import JetStreamError
from jetmap.wire import arrays, subjects
from jetmap.wire.messages import ErrorRecord, Format, Report, encode
from waiting import turns

replace = msgspec.structs.replace
_report = msgspec.msgpack.Decoder(Report).decode


class MemoryStore(Store):
    """A stream of outcomes. Its sequence numbers are those of all jobs.

    broken: raised by ``fetch``. asked: requests so far, by kind. away: questions that will not be
    answered. at_once: messages that a ``fetch`` gives.
    """

    def __init__(self) -> None:
        self.pool = "default"
        self.streams: dict[str, list[StoredMessage]] = {}
        self.broken: Exception | None = None
        self.away = 0
        self.at_once = 64
        self.asked: Counter[str] = Counter()
        self.listening: dict[str, list[Callable[[int], None]]] = {}
        self._next = itertools.count(7, 3)

    def add(self, subject: str, data: bytes) -> int:
        seq = next(self._next)
        self.streams.setdefault(subject, []).append(StoredMessage(seq, data))
        for on_stored in self.listening.get(subject.rpartition(".")[2], []):
            on_stored(seq)
        return seq

    def answer(self) -> None:
        if self.away:
            self.away -= 1
            raise BrokerUnreachable("away")

    async def append(self, subject: str, data: bytes) -> int:
        return self.add(subject, data)

    async def fetch(
        self,
        kind: str,
        subject: str,
        after: int,
        *,
        messages: int = 64,
        max_bytes: int = 4 << 20,
    ) -> list[StoredMessage]:
        self.asked["fetch"] += 1
        await turns()  # As a real one, it lets others run meanwhile.
        if self.broken is not None:
            raise self.broken
        self.answer()
        found = [s for s in self.streams.get(subject, []) if s.seq > after]
        return found[: min(messages, self.at_once)]

    async def size(self, kind: str, subject: str) -> tuple[int, int]:
        self.asked["size"] += 1
        await turns()
        return len(self.streams.get(subject, [])), 0

    async def ages(self, kind: str, subject: str, seqs: Iterable[int]) -> dict[int, float]:
        """Each message is a second older than the next one."""
        there = [stored.seq for stored in self.streams.get(subject, [])]
        return {seq: float(len(there) - there.index(seq)) for seq in seqs}

    async def last_outcome(self) -> int:
        self.asked["last"] += 1
        self.answer()
        return max((stored[-1].seq for stored in self.streams.values() if stored), default=0)

    async def listen(self, job: str, on_stored: Callable[[int], None]) -> Any:
        self.asked["listen"] += 1
        self.listening.setdefault(job, []).append(on_stored)
        return Listening(self, job, on_stored)


class Listening:
    def __init__(self, store: MemoryStore, job: str, on_stored: Callable[[int], None]) -> None:
        self._store = store
        self._job = job
        self._on_stored = on_stored

    async def unsubscribe(self) -> None:
        self._store.listening[self._job].remove(self._on_stored)


class FakeJobs:
    """cluster: it gets these jobs, and its functions run them; without one, any function is known.
    chunk: items of a report. hold: jobs do not run by themselves; then a test stores their
    outcomes with ``put``, and ends them with ``end``, as it does where there is no cluster.

    refuse: raised by ``begin``. room: items that fit into the store. leaderless: uploads cannot be
    aborted. uploads: all that were begun.
    """

    def __init__(
        self, cluster: FakeCluster | None = None, *, chunk: int = 3, hold: bool = False
    ) -> None:
        if cluster is not None:
            cluster.service = self
        self.cluster = cluster
        self.store = MemoryStore()
        self.records: dict[str, Record] = {}
        self.uploads: list[FakeUpload] = []
        self.refuse: Exception | None = None
        self.room = 1 << 60
        self.leaderless = False
        self.chunk = chunk
        self.hold = hold or cluster is None
        self.begun: list[dict[str, Any]] = []
        self.keys: dict[tuple[str, str], FakeUpload] = {}
        self.deleted: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._indexes: dict[tuple[str, int], OutcomeIndex] = {}
        self._numbers = itertools.count(1)
        self.readers = Readers(self.store, self.get, lambda id: self.records.get(id), self._index)

    # As ``Jobs``

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
    ) -> FakeUpload:
        self.store.answer()
        self.begun.append(
            {"caller": caller, "key": key, "ttl": ttl, "timeout": timeout, "reserve": reserve}
        )
        if self.refuse is not None:
            raise self.refuse
        if self.cluster is not None and function not in self.cluster.named:
            raise UnknownFunction(f"no worker ever announced a function {function!r}")
        earlier = self.keys.get((caller, key)) if key is not None else None
        if earlier is not None and earlier.state == "open":
            raise KeyBusy("the first is uploading", retry_after=1.5)
        record = Record(
            id=f"job{next(self._numbers)}",
            function=function,
            format=format,
            kwargs=kwargs,
            created=time.time(),
            timeout=timeout,
            labels=labels or {},
            max_parallel=max_parallel,
            max_failed=None if max_failed is None else str(max_failed),
        )
        upload = FakeUpload(self, record, earlier)
        self.uploads.append(upload)
        if key is not None and earlier is None:
            self.keys[caller, key] = upload
        return upload

    async def get(self, id: str) -> Record:
        self.store.answer()
        if id not in self.records:
            raise UnknownJob(f"there is no job {id!r}")
        return self.records[id]

    async def list(
        self,
        *,
        states: Collection[JobState] = (),
        function: str | None = None,
        limit: int = 100,
        after: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
    ) -> tuple[list[Record], str | None]:
        found = [
            r
            for r in reversed(self.records.values())
            if (not states or r.public_state in states)
            and (function is None or r.function == function)
            and labels.items() <= r.labels.items()
        ]
        if after is not None:
            found = found[[r.id for r in found].index(after) + 1 :]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def retry(self, id: str) -> Record:
        record = await self.get(id)
        if (refusal := transitions.retry_refusal(record)) is not None:
            raise JobNotRetryable(refusal)
        index = self._index(record)
        counts = {"last": index.last, "done": index.done, "failed": index.failed}
        self.records[id] = transitions.retried(record, "", now=time.time(), **counts)
        self.readers.on_record(self.records[id])
        return self.records[id]

    async def steer(self, id: str, **wishes: Unpack[JobSteering]) -> Record:
        record = await self.get(id)
        if not record.is_over:
            self.change(id, **wishes)
        return self.records[id]

    async def update(self, id: str, changes: JobChanges) -> Record:
        record = await self.get(id)
        if record.is_over:
            raise JobOver(f"job {id} is over")
        self.records[id] = transitions.steered(record, new_values(record, changes))
        return self.records[id]

    async def cancel(self, id: str) -> Record:
        record = await self.get(id)
        if not record.is_over:
            self.end(id, "cancelled")
        return self.records[id]

    async def delete(self, id: str) -> None:
        await self.cancel(id)
        self.readers.on_record(replace(self.records.pop(id), state="deleted"))
        self.deleted.append(id)

    def outcomes(self, record: Record) -> StoredOutcomes:
        return StoredOutcomes(self.store, record.id, record.format, self._index(record))

    async def causes(self, record: Record) -> StoredCauses:
        return await stored_causes(self.store, self.outcomes(record), record)

    def _index(self, record: Record) -> OutcomeIndex:
        index = OutcomeIndex(record.run, record.ends)
        return self._indexes.setdefault((record.id, record.run), index)

    def reader(self, record: Record) -> JobReader:
        return self.readers.open(record)

    @property
    def waiters(self) -> int:
        return self.readers.waiting

    # What a test does

    def add(self, id: str, total: int, **facts: Any) -> Record:
        """A job that runs."""
        facts = {"function": "double", "format": "msgpack", "state": "running"} | facts
        self.records[id] = Record(id=id, total=total, created=1e9, **facts)
        self.store.streams.pop(subjects.job_outcomes(self.store.pool, id), None)
        self._indexes.pop((id, 1), None)
        return self.records[id]

    def put(self, id: str, start: int, *values: Any, failed: Sequence[int] = ()) -> int:
        """Store outcomes of consecutive items; those of ``failed`` are errors. Returns the
        message's number."""
        record = self.records[id]
        kept = [None if i in failed else value for i, value in enumerate(values, start)]
        encoded = [ENCODE[record.format](value) for value in kept]
        errors = [
            ErrorRecord(i, "raised", "ValueError", f"no {i}", f"trace of {i}") for i in failed
        ]
        map = subjects.job_map(id, 1, record.run)
        report = Report(
            map, 0, 0, start, len(values), arrays.join(encoded, record.format), errors, 0.1
        )
        seq = self.store.add(subjects.job_outcomes(self.store.pool, id), encode(report))
        done, bad = self._counts(id)
        started = record.started or time.time()
        self.change(id, state="running", done=done, failed=bad, started=started)
        return seq

    def end(self, id: str, state: JobState | None = None, reason: str | None = None) -> None:
        """state: None, as the outcomes say."""
        if id in self.tasks and self.tasks[id] is not asyncio.current_task():
            self.tasks.pop(id).cancel()
        record = self.records[id]
        assert record.state not in OVER
        tolerance = Tolerance.of(record.max_failed)
        may_fail = 0 if tolerance is None else tolerance.limit(record.total)
        state = state or ("failed" if record.failed > may_fail else "succeeded")
        kept = state != "cancelled" and (record.failed > 0 or record.done != record.total)
        self.change(id, state=state, finished=time.time(), reason=reason, keeps_input=kept)

    def change(self, id: str, **facts: Any) -> None:
        """Write a job's record anew."""
        self.records[id] = replace(self.records[id], updated=time.time(), **facts)
        self.readers.on_record(self.records[id])

    def expire(self, id: str) -> None:
        self.records[id] = Record(id=id, function="", format="json", state="expired")
        self.store.streams.clear()
        self.readers.on_record(self.records[id])

    def forget(self) -> None:
        """Forget everything read so far, like another process that has read nothing yet."""
        self._indexes.clear()

    # Inside

    def accept(self, record: Record, items: Sequence[bytes]) -> Record:
        record = replace(record, state="queued", total=len(items))
        self.records[record.id] = record
        if not self.hold:
            self.tasks[record.id] = asyncio.create_task(self._run(record, items))
        return record

    async def _run(self, record: Record, items: Sequence[bytes]) -> None:
        try:
            async with asyncio.timeout(record.timeout):
                for start in range(0, len(items), self.chunk):
                    await self._compute(record, start, items[start : start + self.chunk])
        except TimeoutError:
            self.end(record.id, "failed", "the job took longer than its timeout")
        else:
            self.end(record.id)

    async def _compute(self, record: Record, start: int, items: Sequence[bytes]) -> None:
        assert self.cluster is not None
        function = self.cluster.named[record.function]
        kwargs = DECODE[record.format](record.kwargs) if record.kwargs else {}
        values: list[Any] = []
        failed: list[int] = []
        for index, item in enumerate(items, start):
            try:
                value = function(DECODE[record.format](item), **kwargs)
                values.append(await value if inspect.isawaitable(value) else value)
            except Exception:
                values.append(None)
                failed.append(index)
        await turns()  # As a real one, it lets others run between its chunks.
        self.put(record.id, start, *values, failed=failed)

    def _counts(self, id: str) -> tuple[int, int]:
        """Items that have an outcome, and those of them that failed."""
        index = self._index(self.records[id])
        for stored in self.store.streams[subjects.job_outcomes(self.store.pool, id)]:
            if stored.seq > index.last:
                index.add(stored.seq, _report(stored.data))
        return index.done, index.failed


class FakeUpload:
    """state: open, committed or aborted. pieces: what each ``put`` brought."""

    def __init__(self, jobs: FakeJobs, record: Record, first: FakeUpload | None) -> None:
        self.id = record.id
        self.record = record
        self.state = "open"
        self.pieces: list[list[bytes]] = []
        self.count = 0
        self.has_room = asyncio.Event()  # until then, put waits
        self.has_room.set()
        self._jobs = jobs
        self._first = first

    @property
    def items(self) -> list[Any]:
        return [DECODE[self.record.format](item) for item in self._raw]

    @property
    def earlier(self) -> Record | None:
        return self._jobs.records.get(self._first.id) if self._first is not None else None

    async def put(self, elements: Sequence[bytes | msgspec.Raw]) -> None:
        assert self.state == "open"
        assert elements
        await self.has_room.wait()
        self.pieces.append([bytes(element) for element in elements])
        self.count += len(elements)
        if self.count > self._jobs.room:
            raise StoreFull("it is full", limit=100, used=90, wanted=20)

    async def commit(self) -> Record:
        first = self._first
        if first is not None:
            if (first._raw, first.record.function) != (self._raw, self.record.function):
                raise KeyReused("the key was used for another body")
            self.state = "committed"
            assert self.earlier is not None
            return self.earlier
        self.state = "committed"
        return self._jobs.accept(self.record, self._raw)

    async def abort(self) -> None:
        self.state = "aborted"
        self.pieces = []
        for key in [k for k, upload in self._jobs.keys.items() if upload is self]:
            del self._jobs.keys[key]
        if self._jobs.leaderless:
            raise JetStreamError(503, 10008, "no leader")

    @property
    def _raw(self) -> list[bytes]:
        return [item for piece in self.pieces for item in piece]


class JobCluster(Cluster):
    """An inline cluster with these jobs; its items may have 1,000 bytes."""

    def __init__(self, jobs: FakeJobs | None = None) -> None:
        super().__init__(inline=True)
        self.fake = jobs

    async def _start(self) -> None:
        await super()._start()
        self.fake = self.fake or FakeJobs()

    @property
    def jobs(self) -> Any:
        self._check()
        if self.fake is None:
            raise JobsUnavailable("none")
        return self.fake

    @property
    def max_item(self) -> int:
        return 1000


def arrange(jobs: FakeJobs) -> list[int]:
    """Nine items by five messages, which overlap; returns their numbers."""
    jobs.add("j", 9)
    seqs = [
        jobs.put("j", 3, 3, 4, 5, failed=[4]),
        jobs.put("j", 0, 0, 1, 2, -3, -4),
        jobs.put("j", 0, -1, -1),
        jobs.put("j", 2, -2, -3, -4, -5, 6),
        jobs.put("j", 7, 7, 8),
    ]
    jobs.end("j", "failed")
    return seqs


async def read(stream: Any, count: int = 10**9) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    while len(found) < count:
        try:
            outcome = await anext(stream)
        except StopAsyncIteration:
            break
        assert outcome.item is None
        found.append((outcome.index, outcome.value if outcome.ok else str(outcome.error)))
    return found
