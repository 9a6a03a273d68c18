"""Jobs in memory, with the interface of ``jetmap.jobs.service.Jobs``: for tests of its callers.

What is stored is real: reports in a stream, which the real ``Outcomes`` reads. Functions are
those of a ``FakeCluster``; an ``async def`` is awaited, so that a test can hold an item.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from fake_cluster import FakeCluster
from jetmap import arrays, subjects
from jetmap.errors import KeyBusy, KeyReused, StoreFull, UnknownFunction, UnknownJob
from jetmap.jobs.fold import Fold
from jetmap.jobs.outcomes import Outcomes
from jetmap.jobs.records import OVER, Record, State
from jetmap.jobs.store import Store, Stored
from jetmap.messages import ErrorRecord, Format, Report, encode

replace = msgspec.structs.replace
_decode: dict[Format, Callable[[bytes], Any]] = {
    "json": msgspec.json.decode,
    "msgpack": msgspec.msgpack.decode,
}
_encode: dict[Format, Callable[[Any], bytes]] = {
    "json": msgspec.json.encode,
    "msgpack": msgspec.msgpack.encode,
}


class MemoryStore(Store):
    """A stream of outcomes. Its sequence numbers are those of all jobs."""

    def __init__(self) -> None:
        self.pool = "default"
        self.streams: dict[str, list[Stored]] = {}
        self.broken: Exception | None = None
        self._next = itertools.count(7, 3)

    async def append(self, subject: str, data: bytes) -> int:
        seq = next(self._next)
        self.streams.setdefault(subject, []).append(Stored(seq, data))
        return seq

    async def fetch(
        self,
        kind: str,
        subject: str,
        after: int,
        *,
        messages: int = 64,
        max_bytes: int = 4 << 20,
    ) -> list[Stored]:
        await asyncio.sleep(0)
        if self.broken is not None:
            raise self.broken
        return [s for s in self.streams.get(subject, []) if s.seq > after][:messages]

    async def size(self, kind: str, subject: str) -> tuple[int, int]:
        return len(self.streams.get(subject, [])), 0


class FakeJobs:
    """chunk: items of a report. refuse: raised by ``begin``. room: items that fit into the store.

    uploads: all that were begun. hold: jobs do not run by themselves; then a test stores their
    outcomes with ``store``, and ends them with ``end``.
    """

    def __init__(self, cluster: FakeCluster, *, chunk: int = 3, hold: bool = False) -> None:
        cluster.service = self
        self.cluster = cluster
        self.store = MemoryStore()
        self.records: dict[str, Record] = {}
        self.uploads: list[FakeUpload] = []
        self.refuse: Exception | None = None
        self.room = 1 << 60
        self.chunk = chunk
        self.hold = hold
        self.begun: list[dict[str, Any]] = []
        self.keys: dict[tuple[str, str], FakeUpload] = {}
        self.deleted: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.waiters = 0
        self._changed = asyncio.Condition()
        self._folds: dict[str, Fold] = {}

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
    ) -> FakeUpload:
        self.begun.append(
            {"caller": caller, "key": key, "ttl": ttl, "timeout": timeout, "reserve": reserve}
        )
        if self.refuse is not None:
            raise self.refuse
        if function not in self.cluster.named:
            raise UnknownFunction(f"no worker ever announced a function {function!r}")
        earlier = self.keys.get((caller, key)) if key is not None else None
        if earlier is not None and earlier.state == "open":
            raise KeyBusy("the first is uploading", retry_after=1.5)
        record = Record(
            id=subjects.new_id().replace("_", "a").replace("-", "b"),
            function=function,
            format=format,
            kwargs=kwargs,
            created=time.time(),
            timeout=timeout,
        )
        upload = FakeUpload(self, record, earlier)
        self.uploads.append(upload)
        if key is not None and earlier is None:
            self.keys[caller, key] = upload
        return upload

    async def get(self, id: str) -> Record:
        if id not in self.records:
            raise UnknownJob(f"there is no job {id!r}")
        return self.records[id]

    async def list(
        self,
        *,
        states: Collection[State] = (),
        function: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[list[Record], str | None]:
        found = [
            r
            for r in reversed(self.records.values())
            if (not states or r.state in states) and (function is None or r.function == function)
        ]
        if after is not None:
            found = found[[r.id for r in found].index(after) + 1 :]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def cancel(self, id: str) -> Record:
        record = await self.get(id)
        if not record.is_over:
            await self.end(id, "cancelled")
        return self.records[id]

    async def delete(self, id: str) -> None:
        await self.cancel(id)
        del self.records[id]
        self.deleted.append(id)
        await self._tell()

    def outcomes(self, record: Record) -> Outcomes:
        fold = self._folds.setdefault(record.id, Fold())
        return Outcomes(self.store, record.id, record.format, fold)

    async def changed(self, id: str, timeout: float) -> Record:
        self.waiters += 1
        try:
            async with self._changed, asyncio.timeout(min(timeout, 0.5)):
                await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self.waiters -= 1
        return await self.get(id)

    # What a test does

    async def put(self, id: str, start: int, *values: Any, failed: Sequence[int] = ()) -> int:
        """Stores outcomes of consecutive items; those of ``failed`` are errors."""
        record = self.records[id]
        encoded = [_encode[record.format](value) for value in values]
        errors = [ErrorRecord(i, "raised", "ValueError", "bad") for i in failed]
        report = Report(
            id, 0, 0, start, len(values), arrays.join(encoded, record.format), errors, 0.1
        )
        seq = await self.store.append(subjects.job_outcomes(self.store.pool, id), encode(report))
        done, bad = await self.outcomes(record).counts()
        started = record.started or time.time()
        self.records[id] = replace(
            record, state="running", done=done, failed=bad, started=started, updated=time.time()
        )
        await self._tell()
        return seq

    async def end(self, id: str, state: State | None = None, reason: str | None = None) -> None:
        """state: None, as the outcomes say."""
        if id in self.tasks and self.tasks[id] is not asyncio.current_task():
            self.tasks.pop(id).cancel()
        record = self.records[id]
        assert record.state not in OVER
        state = state or ("failed" if record.failed else "succeeded")
        now = time.time()
        self.records[id] = replace(record, state=state, finished=now, updated=now, reason=reason)
        await self._tell()

    async def expire(self, id: str) -> None:
        self.records[id] = Record(id=id, function="", format="json", state="expired")
        self.store.streams.clear()
        await self._tell()

    # Inside

    async def accept(self, record: Record, items: list[bytes]) -> Record:
        record = replace(record, state="queued", total=len(items))
        self.records[record.id] = record
        if not self.hold:
            self.tasks[record.id] = asyncio.create_task(self._run(record, items))
        return record

    async def _run(self, record: Record, items: list[bytes]) -> None:
        try:
            async with asyncio.timeout(record.timeout):
                for start in range(0, len(items), self.chunk):
                    await self._compute(record, start, items[start : start + self.chunk])
        except TimeoutError:
            await self.end(record.id, "failed", "the job took longer than its timeout")
        else:
            await self.end(record.id)

    async def _compute(self, record: Record, start: int, items: list[bytes]) -> None:
        function = self.cluster.named[record.function]
        kwargs = _decode[record.format](record.kwargs) if record.kwargs else {}
        values: list[Any] = []
        failed: list[int] = []
        for index, item in enumerate(items, start):
            try:
                value = function(_decode[record.format](item), **kwargs)
                values.append(await value if inspect.isawaitable(value) else value)
            except Exception:
                values.append(None)
                failed.append(index)
        await self.put(record.id, start, *values, failed=failed)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class FakeUpload:
    """state: open, committed or aborted. largest: bytes that were put at once."""

    def __init__(self, jobs: FakeJobs, record: Record, first: FakeUpload | None) -> None:
        self.id = record.id
        self.state = "open"
        self.items: list[bytes] = []
        self.puts = 0
        self.largest = 0
        self.has_room = asyncio.Event()  # until then, put waits
        self.has_room.set()
        self._jobs = jobs
        self._first = first
        self._record = record

    @property
    def earlier(self) -> Record | None:
        return self._jobs.records.get(self._first.id) if self._first is not None else None

    async def put(self, elements: Sequence[bytes | msgspec.Raw]) -> None:
        assert self.state == "open"
        assert elements
        await self.has_room.wait()
        self.puts += 1
        self.largest = max(self.largest, sum(len(bytes(e)) for e in elements))
        self.items += map(bytes, elements)
        if len(self.items) > self._jobs.room:
            raise StoreFull("it is full", limit=100, used=90, wanted=20)

    async def commit(self) -> Record:
        first = self._first
        if first is not None:
            if (first.items, first._record.function) != (self.items, self._record.function):
                raise KeyReused("the key was used for another body")
            self.state = "committed"
            assert self.earlier is not None
            return self.earlier
        self.state = "committed"
        return await self._jobs.accept(self._record, self.items)

    async def abort(self) -> None:
        self.state = "aborted"
        self.items = []
        for key in [k for k, upload in self._jobs.keys.items() if upload is self]:
            del self._jobs.keys[key]
