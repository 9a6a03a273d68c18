"""A job's outcomes, read from the store: by page, in input order, or as they came."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from jetmap.dispatch.outcomes import Batch
from jetmap.errors import BrokerUnreachable
from jetmap.wire import arrays, subjects
from jetmap.wire.messages import Format, Report

from .outcome_index import Fold, Piece
from .store import FETCH_BYTES, FETCH_MESSAGES, RETRY_EVERY, RETRY_FOR, Stored

__all__ = ["Event", "Fold", "Outcomes", "Page"]

CACHE_BYTES = 2 * FETCH_BYTES
EVENT_BYTES = 1 << 20  # That a reader of events, who may be slow, holds of what comes next.
PAGE_BYTES = 16 << 20
FIRST_BYTES = 1 << 19  # A page reads this much, then twice as much, …
WINDOW_MESSAGES = 512
LAG_SECONDS = 5.0  # How long a replica may lack what the leader has.
LAG_EVERY = 0.05

More = Callable[[], Awaitable[int | None]]

_report = msgspec.msgpack.Decoder(Report).decode


@dataclass(frozen=True, slots=True)
class Event:
    """What one message has won. seq: its number in the stream. done, failed: items so far,
    with these."""

    seq: int
    batches: list[Batch]
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class Page:
    """Outcomes of consecutive items from ``start`` on. next: the item to ask for next; None
    behind the last."""

    start: int
    batches: list[Batch]
    next: int | None


class Messages(Protocol):
    """Where outcomes are read from: the store, or what readers of a job share."""

    pool: str

    async def fetch(
        self, kind: str, subject: str, after: int, *, messages: int = ..., max_bytes: int = ...
    ) -> list[Stored]: ...

    async def size(self, kind: str, subject: str) -> tuple[int, int]: ...


class Outcomes:
    """Reads one job's outcomes.

    fold: the index, which grows as this reads, and which readers of the same job share. Beside
    it at most some 8 MiB of messages are kept. All methods raise BrokerUnreachable when the
    store does not answer for fifteen seconds.
    """

    def __init__(self, store: Messages, job: str, format: Format, fold: Fold | None = None) -> None:
        self.fold = Fold() if fold is None else fold
        self._store = store
        self._subject = subjects.job_outcomes(store.pool, job)
        self._format = format
        self._kept = _Kept(CACHE_BYTES)

    async def refresh(self) -> Fold:
        """Folds all that is stored now, as far as the replica that answers has it."""
        while await self._fold_more(None):
            pass
        return self.fold

    async def complete(self) -> bool:
        """Folds all that the leader has. False: a replica still lacks some of it after five
        seconds."""
        while await self._catch_up(None):
            pass
        return self.fold.messages >= await self._stored()

    async def counts(self) -> tuple[int, int]:
        """Items that have an outcome, and those of them that failed."""
        fold = await self.refresh()
        return fold.done, fold.failed

    async def page(self, start: int, limit: int, total: int | None) -> Page:
        """Outcomes of at most ``limit`` items, as far as they are there without a gap.

        Fewer, too, when they take more than some 16 MiB. total: the job's items, if known. The
        page's ``next`` is ``start`` when nothing is there yet.
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
            elif self.fold.at(at) is not None or not await self._fold_more(at, max_bytes):
                break
            else:
                max_bytes = min(2 * max_bytes, FETCH_BYTES)
        return Page(start, batches, None if total is not None and at >= total else at)

    async def ordered(self, start: int = 0, *, more: More) -> AsyncIterator[Batch]:
        """Outcomes in input order, without a gap.

        When what is next is not there, ``more`` is awaited: it returns when something may have
        come, with the job's number of items if the job is over, else None. Ends behind the
        last item, or before the first that an ended job has no outcome of.
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
            elif not await self._fold_more(at):
                total = await more()

    async def events(self, after: int = 0, *, more: More) -> AsyncIterator[Event]:
        """What each message with a number over ``after`` has won, in stream order.

        more: as for ``ordered``; ends when the job is over and all was read.
        """
        # All up to here is folded, so what comes next wins what it wins for every reader.
        at = min(after, self.fold.last)
        over = False
        deadline = 0.0
        while True:
            found = await self._fetch(at, max_bytes=EVENT_BYTES)
            for stored in found:
                at = stored.seq
                report = _report(stored.data)
                won = self.fold.add(at, report)
                if won and at > after:
                    batches = self._cut(report, won)
                    yield Event(at, batches, *self.fold.counts_at(at))
            if found:
                deadline = 0.0
            elif not over:
                over = await more() is not None
            else:
                missing = await self._stored() - self.fold.messages  # < 0: they are removed.
                if missing < 0 or (missing == 0 and at >= self.fold.last):
                    return
                deadline = deadline or time.monotonic() + LAG_SECONDS
                if time.monotonic() >= deadline:
                    return
                await asyncio.sleep(LAG_EVERY)

    # Inside

    async def _next(self, item: int, until: int) -> Batch | None:
        """Outcomes from ``item`` on, of one message; None: they are not folded, or gone."""
        piece = self.fold.at(item)
        if piece is None:
            return None
        report = self._kept.get(piece.seq) or await self._read(piece, item, until)
        if report is None:
            return None
        end = min(piece.end, until)
        if self.fold.won_until(piece.seq) <= end:
            self._kept.drop(piece.seq)  # Readers go forward.
        return self._cut(report, [(item, end)])[0]

    async def _read(self, piece: Piece, item: int, until: int) -> Report | None:
        """The message of a piece. Those of the next items that are stored near it are kept."""
        deadline = time.monotonic() + LAG_SECONDS
        wanted: Report | None = None
        while True:
            first, count = self.fold.window(
                item, until, self._kept, FETCH_BYTES, max_messages=WINDOW_MESSAGES
            )
            at = first - 1
            while at < piece.seq:
                found = await self._fetch(at, max(1, count))
                if not found:
                    break
                at = found[-1].seq
                count -= len(found)
                for stored in found:
                    report = _report(stored.data)
                    if stored.seq == piece.seq:
                        wanted = report
                    self._kept.put(stored.seq, report, len(stored.data))
            if wanted is not None:
                return wanted
            # It was there: either this replica lags behind that which showed it, or it is removed.
            if await self._stored() < self.fold.messages or time.monotonic() >= deadline:
                return None
            await asyncio.sleep(LAG_EVERY)

    async def _fold_more(self, item: int | None, max_bytes: int = FETCH_BYTES) -> bool:
        """Folds the next messages. False: there is none. item: the outcomes from there on are
        needed soon, and kept as far as there is room."""
        found = await self._fetch(self.fold.last, max_bytes=max_bytes)
        for stored in found:
            report = _report(stored.data)
            # Another reader may have folded it meanwhile; then this tells what it won.
            won = self.fold.add(stored.seq, report)
            if won and item is not None and won[-1][1] > item:
                self._kept.put_if_room(stored.seq, report, len(stored.data))
        return bool(found)

    async def _catch_up(self, item: int | None) -> bool:
        """Folds the next messages; waits for them while the leader has more than is folded."""
        deadline = time.monotonic() + LAG_SECONDS
        while not await self._fold_more(item):
            if self.fold.messages >= await self._stored() or time.monotonic() >= deadline:
                return False
            await asyncio.sleep(LAG_EVERY)
        return True

    async def _stored(self) -> int:
        """Messages that the leader has."""
        return (await self._store.size("OUTCOMES", self._subject))[0]

    async def _fetch(
        self, after: int, messages: int = FETCH_MESSAGES, max_bytes: int = FETCH_BYTES
    ) -> list[Stored]:
        """The next messages; asks again while the broker is away or elects a leader."""
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

    def _cut(self, report: Report, ranges: list[tuple[int, int]]) -> list[Batch]:
        """Ranges of a report's items, as batches."""
        start, end = report.start, report.start + report.count
        if ranges == [(start, end)]:
            values = [report.values]
        else:
            positions = [(a - start, b - start) for a, b in ranges]
            values = arrays.select(report.values, positions, self._format)
        return [
            Batch(a, b - a, part, [e for e in report.errors if a <= e.index < b])
            for (a, b), part in zip(ranges, values, strict=True)
        ]


class _Kept:
    """Messages that were read before they are needed, up to so many bytes."""

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
        """In place of those that were used the longest time ago."""
        self.drop(seq)
        self._reports[seq] = report, size
        self.size += size
        while self.size > self._max_bytes:
            self.drop(next(iter(self._reports)))

    def put_if_room(self, seq: int, report: Report, size: int) -> None:
        """What was read ahead must not displace what is needed sooner."""
        if self.size + size <= self._max_bytes:
            self.put(seq, report, size)

    def drop(self, seq: int) -> None:
        found = self._reports.pop(seq, None)
        if found is not None:
            self.size -= found[1]
