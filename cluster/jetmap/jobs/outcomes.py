"""Read a job's outcomes from the store: by page, in input order, or as they arrived."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from jetmap.dispatch.ledger import Ranges
from jetmap.dispatch.outcomes import Batch
from jetmap.errors import BrokerUnreachable, JobEnded
from jetmap.wire import arrays, subjects
from jetmap.wire.messages import ErrorRecord, Format, Report

from .outcome_index import OutcomeIndex, OutcomeRange
from .store import FETCH_BYTES, FETCH_MESSAGES, RETRY_EVERY, RETRY_FOR, StoredMessage

__all__ = ["OutcomeEvent", "OutcomeIndex", "Page", "StoredOutcomes"]

# Bytes of messages that a reader keeps.
CACHE_BYTES = 2 * FETCH_BYTES
# Bytes read ahead for a reader of events, which may be slow.
EVENT_BYTES = 1 << 20
# Bytes of a page, roughly.
PAGE_BYTES = 16 << 20
# Bytes of a page's first read; each further read is twice as large.
FIRST_BYTES = 1 << 19
# Parts of one value read together.
PARTS_TOGETHER = 8
# Messages read together.
WINDOW_MESSAGES = 512
# Seconds that a replica may lag behind the leader.
LAG_SECONDS = 5.0
# Seconds between looks at a replica that lags.
LAG_EVERY = 0.05

More = Callable[[], Awaitable[int | None]]

_report = msgspec.msgpack.Decoder(Report).decode


@dataclass(frozen=True, slots=True)
class OutcomeEvent:
    """The outcomes that one message has won.

    seq: the message's sequence number. done, failed: items so far, including these.
    """

    seq: int
    batches: list[Batch]
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class Page:
    """Outcomes of consecutive items from ``start`` on.

    next: the first item of the next page; None after the last item.
    """

    start: int
    batches: list[Batch]
    next: int | None


class Messages(Protocol):
    """A source of outcomes: the store, or the shared reader of a job."""

    pool: str

    async def fetch(
        self, kind: str, subject: str, after: int, *, messages: int = ..., max_bytes: int = ...
    ) -> list[StoredMessage]: ...

    async def size(self, kind: str, subject: str) -> tuple[int, int]: ...

    async def last_outcome(self) -> int: ...


class StoredOutcomes:
    """Read one job's outcomes.

    index: extended while reading, and shared by readers of the same job. Besides it, at most
    8 MiB of messages are kept. Every method raises BrokerUnreachable when the store does not
    answer for fifteen seconds. Those that give outcomes raise JobEnded when some that were there
    have been removed: the job was deleted meanwhile, or its stream was purged.
    """

    def __init__(
        self, store: Messages, job: str, format: Format, index: OutcomeIndex | None = None
    ) -> None:
        self.index = OutcomeIndex() if index is None else index
        self._store = store
        self._subject = subjects.job_outcomes(store.pool, job)
        self._format = format
        self._kept = _ReportCache(CACHE_BYTES)

    async def refresh(self) -> OutcomeIndex:
        """Index all stored outcomes, as far as the answering replica has them."""
        while await self._index_more(None):
            pass
        return self.index

    async def complete(self) -> bool:
        """Index everything the leader has; return False if a replica lags for five seconds."""
        while await self._catch_up(None):
            pass
        return self.index.messages >= await self._stored()

    def ranges(self) -> Ranges:
        """Return the ranges of items whose outcomes are indexed."""
        return self.index.ranges()

    async def read(self) -> Ranges:
        """Index what is stored now, and return the ranges of items with an outcome."""
        await self.complete()
        return self.index.ranges()

    async def counts(self) -> tuple[int, int]:
        """Return the number of items with an outcome, and of those that failed."""
        index = await self.refresh()
        return index.done, index.failed

    async def page(self, start: int, limit: int, total: int | None) -> Page:
        """Return the outcomes of at most ``limit`` items, up to the first gap.

        A page ends early at some 16 MiB. total: the job's number of items, if known. The page's
        ``next`` is ``start`` when it is empty because nothing is there yet.
        """
        end = start + limit if total is None else min(start + limit, total)
        batches: list[Batch] = []
        at, size, max_bytes = start, 0, FIRST_BYTES
        while at < end and size < PAGE_BYTES:
            batch = await self._next(at, end)
            if batch is not None:
                batches.append(batch)
                at += batch.count
                size += batch.size
            elif self.index.at(at) is not None or not await self._index_more(at, max_bytes):
                break
            else:
                max_bytes = min(2 * max_bytes, FETCH_BYTES)
        return Page(start, batches, None if total is not None and at >= total else at)

    async def failures(self, start: int, limit: int) -> tuple[list[ErrorRecord], int | None]:
        """Return the errors of at most ``limit`` failed items from ``start`` on, in input order.

        Also returns the item to go on from; None: behind these, no item has failed so far.
        """
        await self.refresh()
        found: list[ErrorRecord] = []
        at = start
        for first, end in self.index.failures.ranges():
            at = max(at, first)
            while at < end:
                if len(found) >= limit:
                    return found, at
                batch = await self._next(at, min(end, at + limit - len(found)))
                assert batch is not None  # It is indexed.
                found += batch.errors
                at = batch.start + batch.count
        return found, None

    async def ordered(self, start: int = 0, *, more: More) -> AsyncIterator[Batch]:
        """Yield outcomes in input order, without a gap.

        When the next outcome is missing, ``more`` is awaited. It returns when something may have
        arrived: the job's number of items if the job is over, else None. Ends after the last item,
        or at the first item for which an ended job has no outcome.
        """
        at = start
        total: int | None = None
        while total is None or at < total:
            batch = await self._next(at, sys.maxsize if total is None else total)
            if batch is not None:
                at += batch.count
                yield batch
            elif total is not None:
                if not await self._catch_up(at):
                    return
            elif not await self._index_more(at):
                total = await more()

    async def has_place(self, seq: int) -> bool:
        """Return whether a reader may have come to this message: it is stored, and of this job."""
        if seq <= self.index.last:
            return seq == 0 or self.index.has(seq)
        if self.index.until is not None and seq > self.index.until:
            return False
        deadline = time.monotonic() + LAG_SECONDS
        while not (found := await self._fetch(seq - 1, 1)):
            # It is stored if only this replica lacks it.
            if seq > await self._store.last_outcome() or time.monotonic() >= deadline:
                return False
            await asyncio.sleep(LAG_EVERY)
        return found[0].seq == seq

    async def events(self, after: int = 0, *, more: More) -> AsyncIterator[OutcomeEvent]:
        """Yield what each message after sequence number ``after`` has won, in stream order.

        more: as for ``ordered``. Ends when the job is over and everything was read.
        """
        # Everything up to here is indexed, so later messages win the same for every reader.
        at = min(after, self.index.last)
        over = False
        deadline = 0.0
        while True:
            found = await self._fetch(at, max_bytes=EVENT_BYTES)
            for stored in found:
                at = stored.seq
                report = _report(stored.data)
                won = self.index.add(at, report)
                if won and at > after:
                    batches = self._cut(await self._whole(report), won)
                    yield OutcomeEvent(at, batches, *self.index.counts_at(at))
            if found:
                deadline = 0.0
            elif not over:
                over = await more() is not None
            else:
                missing = await self._stored() - self.index.messages
                if missing < 0:
                    raise self._removed()
                if missing == 0 and at >= self.index.last:
                    return
                deadline = deadline or time.monotonic() + LAG_SECONDS
                if time.monotonic() >= deadline:
                    return
                await asyncio.sleep(LAG_EVERY)

    # Inside

    async def _next(self, item: int, until: int) -> Batch | None:
        """Return one message's outcomes from ``item`` on; None if they are not indexed."""
        span = self.index.at(item)
        if span is None:
            return None
        report = self._kept.get(span.seq) or await self._read(span, item, until)
        end = min(span.end, until)
        if self.index.won_until(span.seq) <= end:
            self._kept.drop(span.seq)  # Readers only move forward.
        return self._cut(await self._whole(report), [(item, end)])[0]

    async def _read(self, span: OutcomeRange, item: int, until: int) -> Report:
        """Read the message of a range, and keep nearby messages with the next items."""
        deadline = time.monotonic() + LAG_SECONDS
        wanted: Report | None = None
        while True:
            first, count = self.index.window(
                item, until, self._kept, FETCH_BYTES, max_messages=WINDOW_MESSAGES
            )
            at = first - 1
            while at < span.seq:
                found = await self._fetch(at, max(1, count))
                if not found:
                    break
                at = found[-1].seq
                count -= len(found)
                for stored in found:
                    report = _report(stored.data)
                    if stored.seq == span.seq:
                        wanted = report
                    self._kept.put(stored.seq, report, len(stored.data))
            if wanted is not None:
                return wanted
            # It was indexed, so either this replica lags behind, or the message was removed.
            if await self._stored() < self.index.messages:
                raise self._removed()
            if time.monotonic() >= deadline:
                raise BrokerUnreachable("a replica of the stream of outcomes lags behind")
            await asyncio.sleep(LAG_EVERY)

    def _removed(self) -> JobEnded:
        """Make the error for outcomes that were there; later readers index the job anew."""
        self.index.is_outdated = True
        return JobEnded(
            "outcomes of this job are not in the store any more: it was deleted while they were "
            "read, or its stream was purged",
            state="removed",
        )

    async def _index_more(self, item: int | None, max_bytes: int = FETCH_BYTES) -> bool:
        """Index the next messages; return False if there are no more.

        item: outcomes from this item on are needed soon, and are kept while there is room.
        """
        found = await self._fetch(self.index.last, max_bytes=max_bytes)
        for stored in found:
            report = _report(stored.data)
            # Another reader may have indexed it meanwhile; this then returns what it won.
            won = self.index.add(stored.seq, report)
            if won and item is not None and won[-1][1] > item:
                self._kept.put_if_room(stored.seq, report, len(stored.data))
        return bool(found)

    async def _catch_up(self, item: int | None) -> bool:
        """Index more, waiting for a replica that lags; return False once all is indexed."""
        deadline = time.monotonic() + LAG_SECONDS
        while not await self._index_more(item):
            if self.index.messages >= await self._stored() or time.monotonic() >= deadline:
                return False
            await asyncio.sleep(LAG_EVERY)
        return True

    async def _stored(self) -> int:
        """Return the number of messages that the leader has; of an earlier run, that count."""
        if (until := self.index.until) is not None:
            return self.index.messages + (self.index.last < until)
        return (await self._store.size("OUTCOMES", self._subject))[0]

    async def _fetch(
        self, after: int, messages: int = FETCH_MESSAGES, max_bytes: int = FETCH_BYTES
    ) -> list[StoredMessage]:
        """Read the next messages; retry while the broker is away or elects a leader."""
        if self.index.until is not None and after >= self.index.until:
            return []
        deadline = time.monotonic() + RETRY_FOR
        while True:
            try:
                return await self._store.fetch(
                    "OUTCOMES", self._subject, after, messages=messages, max_bytes=max_bytes
                )
            except BrokerUnreachable:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(RETRY_EVERY)

    async def _whole(self, report: Report) -> Report:
        """Return a report with its values, which are read if they were stored in parts."""
        if not report.parts:
            return report
        parts: list[bytes] = []
        for at in range(0, len(report.parts), PARTS_TOGETHER):
            some = report.parts[at : at + PARTS_TOGETHER]
            parts += await asyncio.gather(*(self._part(seq) for seq in some))
        return msgspec.structs.replace(report, values=b"".join(parts), parts=[])

    async def _part(self, seq: int) -> bytes:
        """Read one part of a report's values."""
        deadline = time.monotonic() + LAG_SECONDS
        while time.monotonic() < deadline:
            for stored in await self._fetch(seq - 1, 1):
                if stored.seq == seq:
                    return _report(stored.data).values
            await asyncio.sleep(LAG_EVERY)  # This replica lags behind.
        raise JobEnded("values of this job are not in the store any more", state="failed")

    def _cut(self, report: Report, ranges: list[tuple[int, int]]) -> list[Batch]:
        """Cut ranges of items out of a report, as batches."""
        start, end = report.start, report.start + report.count
        if ranges == [(start, end)]:
            values = [report.values]
        else:
            positions = [(a - start, b - start) for a, b in ranges]
            values = arrays.select(report.values, positions, self._format)
        return [
            Batch(a, b - a, part, [e for e in report.errors if a <= e.index < b], report.tries)
            for (a, b), part in zip(ranges, values, strict=True)
        ]


class _ReportCache:
    """Messages read before they are needed, up to ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self._max_bytes = max_bytes
        self._reports: OrderedDict[int, tuple[Report, int]] = OrderedDict()

    def __contains__(self, seq: object) -> bool:
        return seq in self._reports

    def get(self, seq: int) -> Report | None:
        found = self._reports.get(seq)
        if found is None:
            return None
        self._reports.move_to_end(seq)
        return found[0]

    def put(self, seq: int, report: Report, size: int) -> None:
        """Keep a message, and drop the least recently used ones."""
        self.drop(seq)
        self._reports[seq] = report, size
        self.size += size
        while self.size > self._max_bytes:
            self.drop(next(iter(self._reports)))

    def put_if_room(self, seq: int, report: Report, size: int) -> None:
        """Keep a message that was read ahead, unless it displaces one that is needed sooner."""
        if self.size + size <= self._max_bytes:
            self.put(seq, report, size)

    def drop(self, seq: int) -> None:
        found = self._reports.pop(seq, None)
        if found is not None:
            self.size -= found[1]
