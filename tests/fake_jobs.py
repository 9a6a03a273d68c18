"""Jobs without a broker: what ``cluster.jobs`` is, with outcomes as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

import msgspec

from jetmap import Cluster, JobsUnavailable, UnknownJob, arrays
from jetmap.broker.connection import JetStreamError
from jetmap.dispatch.intervals import IntervalSet
from jetmap.dispatch.outcome import Batch
from jetmap.errors import BrokerUnreachable
from jetmap.jobs.outcomes import Event
from jetmap.jobs.records import Record, State
from jetmap.messages import ErrorRecord, Format

replace = msgspec.structs.replace


class FakeJobs:
    """records: by id. away: calls that the broker will not answer."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.uploads: list[FakeUpload] = []
        self.stored: dict[str, list[tuple[int, Batch]]] = {}
        self.away = 0
        self.asked = 0
        self._seq = 100
        self._stirred = asyncio.Event()

    # As a test arranges it

    def add(self, id: str, total: int, **facts: Any) -> Record:
        """A job that runs."""
        facts = {"function": "double", "format": "msgpack", "state": "running"} | facts
        self.records[id] = Record(id=id, total=total, created=1e9, **facts)
        self.stored[id] = []
        return self.records[id]

    def finish(self, id: str, start: int, values: Sequence[Any], fails: Iterable[int] = ()) -> int:
        """Outcomes from ``start`` on are stored; those in ``fails`` are errors."""
        format = self.records[id].format
        fails = [i for i in fails if start <= i < start + len(values)]
        kept = [None if start + i in fails else value for i, value in enumerate(values)]
        encode = msgspec.json.encode if format == "json" else msgspec.msgpack.encode
        errors = [ErrorRecord(i, "raised", "ValueError", f"no {i}") for i in fails]
        self._seq += 3
        self.stored[id].append((self._seq, Batch(start, len(values), encode(kept), errors)))
        done, failed = self.counts(id)
        self.records[id] = replace(self.records[id], done=done, failed=failed)
        self.stir()
        return self._seq

    def end(self, id: str, state: State, reason: str | None = None) -> None:
        self.records[id] = replace(self.records[id], state=state, reason=reason, finished=2e9)
        self.stir()

    def stir(self) -> None:
        self._stirred.set()
        self._stirred = asyncio.Event()

    def events(self, id: str) -> list[Event]:
        """Everything that is stored, folded."""
        seen = IntervalSet()
        found, failed = [], 0
        for seq, batch in self.stored[id]:
            won = seen.add(batch.start, batch.start + batch.count)
            positions = [(a - batch.start, b - batch.start) for a, b in won]
            parts = arrays.select(batch.values, positions, self.records[id].format)
            batches = [
                Batch(a, b - a, part, [e for e in batch.errors if a <= e.index < b])
                for (a, b), part in zip(won, parts, strict=True)
            ]
            failed += sum(len(part.errors) for part in batches)
            if won:
                found.append(Event(seq, batches, seen.size, failed))
        return found

    def counts(self, id: str) -> tuple[int, int]:
        events = self.events(id)
        return (events[-1].done, events[-1].failed) if events else (0, 0)

    # As ``Jobs``

    async def begin(self, function: str, **options: Any) -> FakeUpload:
        self.answer()
        self.uploads.append(FakeUpload(self, function, options))
        return self.uploads[-1]

    async def get(self, id: str) -> Record:
        self.answer()
        if id not in self.records:
            raise UnknownJob(f"there is no job {id!r}, or no longer")
        return self.records[id]

    async def list(
        self,
        *,
        states: Collection[State] = (),
        function: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[list[Record], str | None]:
        ids = sorted(
            id
            for id, record in self.records.items()
            if (not states or record.state in states) and function in (None, record.function)
        )
        ids = [id for id in ids if after is None or id > after]
        page = [self.records[id] for id in ids[:limit]]
        return page, page[-1].id if len(ids) > limit else None

    async def cancel(self, id: str) -> Record:
        record = await self.get(id)
        if not record.is_over:
            self.end(id, "cancelled")
        return self.records[id]

    async def delete(self, id: str) -> None:
        await self.get(id)
        del self.records[id], self.stored[id]
        self.stir()

    def outcomes(self, record: Record) -> FakeOutcomes:
        return FakeOutcomes(self, record.id)

    async def changed(self, id: str, timeout: float) -> Record:
        try:
            async with asyncio.timeout(timeout):
                await self._stirred.wait()
        except TimeoutError:
            pass
        return await self.get(id)

    def answer(self) -> None:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise BrokerUnreachable("away")


class FakeOutcomes:
    def __init__(self, jobs: FakeJobs, id: str) -> None:
        self._jobs, self._id = jobs, id

    async def counts(self) -> tuple[int, int]:
        self._jobs.answer()
        return self._jobs.counts(self._id)

    async def events(self, after: int, *, more: Any) -> AsyncIterator[Event]:
        over = None
        while True:
            for event in self._jobs.events(self._id):
                if event.seq > after:
                    self._jobs.answer()
                    after = event.seq
                    yield event
            if over is not None:
                return
            over = await more()

    async def ordered(self, start: int, *, more: Any) -> AsyncIterator[Batch]:
        over = None
        while True:
            batches = [b for event in self._jobs.events(self._id) for b in event.batches]
            format: Format = self._jobs.records[self._id].format
            for batch in sorted(batches, key=lambda b: b.start):
                skip = start - batch.start
                if 0 <= skip < batch.count:
                    self._jobs.answer()
                    [values] = arrays.select(batch.values, [(skip, batch.count)], format)
                    errors = [e for e in batch.errors if e.index >= start]
                    part = Batch(start, batch.count - skip, values, errors)
                    start = batch.start + batch.count
                    yield part
            if over is not None:
                return
            over = await more()


class FakeUpload:
    """pieces: what each ``put`` brought. room: what ``put`` waits for."""

    def __init__(self, jobs: FakeJobs, function: str, options: dict[str, Any]) -> None:
        self.id = f"job{len(jobs.uploads) + 1}"
        self.earlier: Record | None = None
        self.function = function
        self.options = options
        self.pieces: list[list[bytes]] = []
        self.state = "open"
        self.refusal: Exception | None = None
        self.room = asyncio.Event()
        self.room.set()
        self._jobs = jobs

    @property
    def items(self) -> list[Any]:
        decode = msgspec.json.decode if self.options["format"] == "json" else msgspec.msgpack.decode
        return [decode(item) for piece in self.pieces for item in piece]

    async def put(self, elements: Sequence[bytes | msgspec.Raw]) -> None:
        await self.room.wait()
        if self.refusal is not None:
            raise self.refusal
        self.pieces.append([bytes(element) for element in elements])

    async def commit(self) -> Record:
        self.state = "committed"
        total = sum(map(len, self.pieces))
        self._jobs.add(self.id, total, function=self.function, format=self.options["format"])
        return self._jobs.records[self.id]

    async def abort(self) -> None:
        self.state = "aborted"
        # Nothing of this must hide the error that led here.
        raise JetStreamError(503, 10008, "no leader")


class JobCluster(Cluster):
    """An inline cluster with these jobs; its items may have 1,000 bytes."""

    def __init__(self) -> None:
        super().__init__(inline=True)
        self.fake: FakeJobs | None = None

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
