"""Store the outcomes of jobs first, then report them to the dispatcher without their values."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from dataclasses import dataclass

import msgspec

from jetmap.errors import JetmapError
from jetmap.nats.answers import JetStreamError, checked, lacks_room
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import subjects
from jetmap.wire.messages import PART_BYTES, Report, encode

from .holdings import HeldChunk
from .reports import Reports

logger = logging.getLogger(__name__)

OVERDUE = 3.0  # Seconds without an ack after which a report is stored again.

SILENT_SENDS = 2  # Attempts without an answer, after which one report tries for all.

QUIET_SECONDS = 30.0  # Seconds between two warnings.

_report = msgspec.msgpack.Decoder(Report).decode


PARTS_OUT = 8  # Parts of one report's values that are being stored at once.


@dataclass
class _Large:
    """A report whose values are stored in parts, before it."""

    report: Report
    values: memoryview
    waiting: deque[int]  # Offsets of the parts that are not being stored yet.
    stored: dict[int, int]  # Offset of each part that is stored, and its sequence number.
    part_bytes: int
    left: int  # Parts that are not stored yet.


@dataclass
class _Unstored:
    held: HeldChunk
    report: bytes
    at: float
    sends: int = 0  # Attempts without an answer.
    large: _Large | None = None  # The report that this part belongs to,
    offset: int = 0  # and the part's place.
    size: int = 0  # Bytes of the values that are stored in parts before this report.


class StoredReports:
    """Append reports to the streams of their jobs.

    A report that is stored twice does no harm: the first outcome of an item wins.

    Args:
        reports: Takes each report that is stored, without its values.
    """

    def __init__(
        self,
        connection: Broker,
        pool: str,
        inbox: str,
        reports: Reports,
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._inbox = f"{inbox}.stored"
        self._reports = reports
        self._numbers = itertools.count()
        self._unstored: dict[int, _Unstored] = {}
        self._quiet_until = 0.0
        self._holds_back = False  # One report tries for all: there is no room, or no answer.
        self._is_full = False  # There is no room.
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self._connection.subscribe(
            f"{self._inbox}.*", self._on_ack, direct=True
        )
        self._connection.on_reconnect(self._on_reconnect)

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def add(self, held: HeldChunk, report: bytes) -> None:
        """Store a report; it goes on to the dispatcher when that is done."""
        held.unsent += 1
        await self._store(_Unstored(held, report, time.monotonic()))

    async def add_large(self, held: HeldChunk, report: bytes, values: bytes) -> None:
        """Store a report's values in parts, then the report, which names the parts."""
        held.unsent += 1
        part_bytes = min(PART_BYTES, self._connection.room)
        offsets = deque(range(0, len(values), part_bytes))
        large = _Large(_report(report), memoryview(values), offsets, {}, part_bytes, len(offsets))
        for _ in range(min(PARTS_OUT, large.left)):
            await self._store_part(held, large)

    async def _store_part(self, held: HeldChunk, large: _Large) -> None:
        """Store the next part of a report's values: as a report without outcomes."""
        offset = large.waiting.popleft()
        whole = large.report
        part = bytes(large.values[offset : offset + large.part_bytes])
        message = Report(whole.map, whole.number, whole.attempt, whole.start, 0, part, [], 0.0)
        await self._store(
            _Unstored(held, encode(message), time.monotonic(), large=large, offset=offset)
        )

    async def _on_part_stored(self, unstored: _Unstored, large: _Large, seq: int) -> None:
        """Store the next part; or the report, if this was the last one."""
        large.stored[unstored.offset] = seq
        large.left -= 1
        if large.waiting:
            await self._store_part(unstored.held, large)
        elif not large.left:
            whole, size = large.report, len(large.values)
            whole.parts, whole.size = [large.stored[at] for at in sorted(large.stored)], size
            await self._store(_Unstored(unstored.held, encode(whole), time.monotonic(), size=size))

    async def _store(self, unstored: _Unstored) -> None:
        number = next(self._numbers)
        self._unstored[number] = unstored
        if not self._holds_back:
            await self._append(number)

    @property
    def has_unstored(self) -> bool:
        return bool(self._unstored)

    async def store_overdue(self, now: float) -> None:
        """Store again, every beat, the reports that the broker refused or did not acknowledge."""
        for number, unstored in list(self._unstored.items()):
            if unstored.held.unwanted:
                del self._unstored[number]
            elif now - unstored.at >= OVERDUE:
                if self._holds_back and not await self._may_try():
                    return
                if unstored.sends >= SILENT_SENDS and not self._holds_back:
                    self._holds_back = True
                    self._warn(
                        "the broker does not answer, as when its disk is full; then make room, "
                        "and start it again unless it is the one of `jetmap up`"
                    )
                unstored.at = now
                await self._append(number)
                if self._holds_back:
                    return  # One report tries whether there is room for all.

    async def _may_try(self) -> bool:
        """Return whether a report may try for room: not while records need their reserve.

        Nor while that is refilled, a piece at a time: its room would seem to be free.
        """
        try:
            stream = subjects.job_stream(self._pool, "SPARE")
            info = await self._connection.api(f"STREAM.INFO.{stream}")
        except JetmapError:
            return True  # No room is kept, or this agent may not ask.
        return int(info["state"]["messages"]) >= subjects.SPARE_PIECES

    async def _append(self, number: int) -> None:
        unstored = self._unstored[number]
        unstored.sends += 1
        job = subjects.job_of(unstored.held.head.map) or ""
        try:
            await self._connection.publish(
                subjects.job_outcomes(self._pool, job), unstored.report, f"{self._inbox}.{number}"
            )
        except JetmapError as error:
            logger.debug("job %s: outcomes not stored yet: %s", job, error)

    async def _on_ack(self, message: Message) -> None:
        """Process the broker's ack of a report, or its refusal."""
        number = int(message.subject.rsplit(".", 1)[1])
        if (answered := self._unstored.get(number)) is not None:
            answered.sends = 0
        try:
            stored = int(checked(message.data)["seq"]) if message.data else 0
        except JetStreamError as error:
            self._holds_back = self._is_full = lacks_room(error)
            self._warn(str(error))
            return
        if not stored:
            return  # No responders: the stream is missing, or has no leader, at the moment.
        if self._holds_back:
            self._let_all_try()
        unstored = self._unstored.pop(number, None)
        if unstored is None:
            return
        held = unstored.held
        if unstored.large is not None:
            if not held.unwanted:
                await self._on_part_stored(unstored, unstored.large, stored)
            return
        held.unsent -= 1
        if held.unwanted:
            return
        report = _report(unstored.report)
        report.stored, report.size = stored, unstored.size or len(report.values)
        report.values, report.parts = b"", []
        await self._reports.add(held, encode(report))
        await self._reports.flush()

    async def _on_reconnect(self) -> None:
        """Store every waiting report again, which the broker may have lost.

        Of those for which it had no room, one tries first, as before: all together would take the
        room that a record is about to get.
        """
        if not self._is_full:
            self._let_all_try()

    def _let_all_try(self) -> None:
        self._holds_back = self._is_full = False
        for waiting in self._unstored.values():
            waiting.at = 0.0  # Store it at the next beat.
            waiting.sends = 0

    def _warn(self, reason: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:  # Each report is tried every few seconds.
            self._quiet_until = now + QUIET_SECONDS
            logger.warning("outcomes of jobs cannot be stored, tried again: %s", reason)
