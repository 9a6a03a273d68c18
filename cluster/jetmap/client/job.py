"""Jobs as Python callers hold them."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, overload

from jetmap import bounds
from jetmap.dispatch.outcomes import Batch, Outcome, X, Y
from jetmap.errors import ItemError
from jetmap.jobs.record import OVER, Record, State

from .call import Call, first_error
from .job_reader import Reading

if TYPE_CHECKING:
    from jetmap.jobs.outcomes import Event
    from jetmap.jobs.service import Jobs


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment.

    total: items, None while they are uploaded; done: of these, with an outcome; failed: of the
    done ones, with an error. created, started, finished: UTC, None while it has not happened.
    rate: items a second, not counting the time it waited. seconds_left: estimated from it; None
    while unknown or waiting, 0 when the job is over. waiting_for: the kind of thing that a job in
    the state "waiting" lacks, such as "workers". reason: why it failed as a whole, or why it waits.
    """

    id: str
    function: str
    state: State
    total: int | None
    done: int
    failed: int
    created: datetime | None
    started: datetime | None
    finished: datetime | None
    rate: float | None
    seconds_left: float | None
    waiting_for: str | None
    reason: str | None

    @classmethod
    def of(cls, record: Record) -> JobStatus:
        return cls(
            id=record.id,
            function=record.function,
            state=record.public_state,
            total=record.total,
            done=record.done,
            failed=record.failed,
            created=_utc(record.created),
            started=_utc(record.started),
            finished=_utc(record.finished),
            rate=record.rate,
            seconds_left=record.seconds_left,
            waiting_for=record.waiting_for,
            reason=record.reason,
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in OVER


class Job(Generic[X, Y]):
    """A map that goes on without its caller. Made by ``Cluster.submit`` and ``Cluster.job``.

    ``await job`` gives its results. Every method raises UnknownJob if there is no such job (any
    more), and BrokerUnreachable if the broker does not come back within a minute.
    """

    def __init__(self, id: str, jobs: Callable[[], Jobs], call: Call) -> None:
        self.id = id
        self._jobs = jobs
        self._call = call

    async def status(self) -> JobStatus:
        """How far it is."""
        return JobStatus.of(await self._jobs().get(self.id))

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """Waits until it is over, however it ended. Raises TimeoutError; the job goes on."""
        async with asyncio.timeout(bounds.PATIENCE.check_optional("timeout", timeout)):
            return JobStatus.of(await self._reading().until_over())

    @overload
    async def results(self, return_exceptions: Literal[False] = False) -> list[Y]: ...
    @overload
    async def results(self, return_exceptions: bool) -> list[Y | ItemError]: ...
    async def results(self, return_exceptions: bool = False) -> list[Any]:
        """Waits until it is over; the values in input order.

        return_exceptions: put an ItemError in the place of each failing item. Raises the first
        failing item's ItemError, JobEnded for a job that has not all its outcomes, TypeError if
        the job runs another function than the one that was given.
        """
        reading = self._reading()
        values: list[Any] = []
        error = None
        async with aclosing(reading.ordered(0)) as batches:
            async for batch in batches:
                decoded = self._call.values(batch, reading.format)
                if not return_exceptions and (error := first_error(decoded)) is not None:
                    break
                values += decoded
        if error is not None:
            # Not read to its end, but it is to be over.
            last = self._reading()
            await last.until_over()
            await last.check_complete()
            raise error
        return values

    def stream(self, after: str | int | None = None, ordered: bool = False) -> JobStream[Y]:
        """Outcomes, those that are there first, then as they come; see ``JobStream``.

        after: the ``position`` of an earlier stream of this job, from whatever process: goes on
        behind it, without a gap or a repeat. ordered: in input order; its positions are others.
        """
        return JobStream(self._reading(), self._call, after, ordered)

    async def cancel(self) -> JobStatus:
        """Ends it; the outcomes that there are stay. Harmless if it is over."""
        return JobStatus.of(await self._jobs().cancel(self.id))

    async def delete(self) -> None:
        """Cancels it, and removes its input and outcomes."""
        await self._jobs().delete(self.id)

    def __await__(self) -> Generator[Any, None, list[Y]]:
        return self.results().__await__()

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def _reading(self) -> Reading:
        name = self._call.function.name if self._call.function is not None else ""
        return Reading(self.id, self._jobs, name)


class JobStream(Generic[Y]):
    """An async iterator, and an async context manager, of ``Outcome`` (whose ``item`` is None).

    Failing items never raise from it. It ends with the job, and raises JobEnded if that has not
    all its outcomes. Leaving it does not cancel the job.
    """

    def __init__(
        self, reading: Reading, call: Call, after: str | int | None, ordered: bool
    ) -> None:
        self._reading = reading
        self._call = call
        self._ordered = ordered
        # Everything up to _at was given, and then _given more outcomes, of what ends at _end.
        self._at, self._given = _parsed(after, ordered)
        self._end = self._at
        self._ready: deque[Outcome[None, Y]] = deque()
        self._parts: AsyncGenerator[Any, None] | None = None
        self._closed = False

    @property
    def position(self) -> str:
        """Behind the last outcome that was taken: what ``stream(after=)`` wants to go on there.

        In the order of coming it is the number of the last event that was read whole, as the
        gateway's ``Last-Event-ID``, and with a colon how many outcomes of the next one.
        """
        if self._ordered:
            return f"@{self._at + self._given}"
        return f"{self._at}:{self._given}" if self._given else str(self._at)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[None, Y]:
        if not self._ready:
            await self.read()
        return self.take()

    async def read(self) -> None:
        """Has at least one outcome ready to ``take``, or raises StopAsyncIteration."""
        while not self._ready:
            if self._closed:
                raise StopAsyncIteration
            self._reading.check()
            if self._parts is None:
                reading = self._reading
                self._parts = (
                    reading.ordered(self._at) if self._ordered else reading.events(self._at)
                )
            try:
                part = await anext(self._parts)
            except StopAsyncIteration:
                self._closed = True
                raise
            except BaseException:
                # A generator that was left by an error, or cancelled, has ended: a new one goes
                # on where it was.
                self._parts = None
                raise
            self._add(part)

    @property
    def is_ready(self) -> bool:
        """Whether ``take`` has one."""
        return bool(self._ready)

    def take(self) -> Outcome[None, Y]:
        """The next of those that are ready."""
        outcome = self._ready.popleft()
        self._given += 1
        if not self._ready:
            self._at, self._given = self._end, 0
        return outcome

    async def aclose(self) -> None:
        """Reads no more. Twice is harmless."""
        self._closed = True
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _add(self, part: Event | Batch) -> None:
        if isinstance(part, Batch):
            batches, self._end = [part], part.start + part.count
        else:
            batches, self._end = part.batches, part.seq
        for batch in batches:
            values = self._call.values(batch, self._reading.format)
            for index, value in enumerate(values, batch.start):
                if isinstance(value, ItemError):
                    self._ready.append(Outcome(index, None, None, value))
                else:
                    self._ready.append(Outcome(index, None, value, None))
        # Those that an earlier stream has given.
        for _ in range(min(self._given, len(self._ready))):
            self._ready.popleft()
        if not self._ready:
            self._at, self._given = self._end, 0


def _parsed(after: str | int | None, ordered: bool) -> tuple[int, int]:
    """Where to begin, and how many outcomes from there to leave out."""
    if after is None:
        return 0, 0
    pattern = r"@(\d+)()" if ordered else r"(\d+)(?::(\d+))?"
    found = re.fullmatch(pattern, str(after), re.ASCII)
    if found is None:
        kind = "an ordered" if ordered else "an unordered"
        raise ValueError(f"{after!r} is no position of {kind} stream")
    return int(found[1]), int(found[2] or 0)


def _utc(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
