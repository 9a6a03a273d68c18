"""Follow a job's record and outcomes, through a while without a broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from jetmap.dispatch.outcomes import Batch
from jetmap.errors import BrokerUnreachable, JobEnded, UnknownJob
from jetmap.jobs.record import Record, check_readable, find_run
from jetmap.wire.messages import ErrorRecord, Format

from .call import Call

if TYPE_CHECKING:
    from jetmap.jobs.outcomes import OutcomeEvent, StoredOutcomes
    from jetmap.jobs.readers import JobReader
    from jetmap.jobs.service import Jobs

PATIENCE = 60.0  # Seconds without a broker after which a follower gives up.
PAUSE = 0.25  # Seconds between two attempts.

T = TypeVar("T")


class JobFollower:
    """Reads the record and the outcomes of one job, without touching the job.

    Args:
        jobs: Returns the service, or raises ClusterClosed where it may not be used.
        function: Name that the job's function must have; empty: any.
        run: The run to follow; None: the latest, once something was read.
    """

    def __init__(
        self, id: str, jobs: Callable[[], Jobs], function: str = "", run: int | None = None
    ) -> None:
        self.id = id
        self._jobs = jobs
        self.run = run
        self._function = function
        self._record: Record | None = None
        self._reader: JobReader | None = None
        self._silent_since: float | None = None

    def check(self) -> None:
        """Raise ClusterClosed where the cluster may not be used."""
        self._jobs()

    @property
    def format(self) -> Format:
        """Encoding of the outcomes; known once something was read."""
        assert self._record is not None
        return self._record.format

    @property
    def tolerates(self) -> bool:
        """True if some of the job's items may fail; known once something was read."""
        assert self._record is not None
        return self._record.max_failed is not None

    @property
    def succeeded(self) -> bool:
        """True if the run had succeeded when it was last read; known once something was read."""
        assert self._record is not None
        return self._record.state == "succeeded"

    def values(self, call: Call, batch: Batch) -> list[Any]:
        """Decode a batch, with an ItemError in the place of each failed item."""
        assert self._record is not None
        if not self._record.values and call.has_values:
            call = call.without_values()
        return call.values(batch, self._record.format)

    async def records(self) -> AsyncGenerator[Record, None]:
        """Give the record now, and whenever it may have changed, until the job is over."""
        record = await self._ask(self._get)
        reader = self._jobs().reader(record)
        try:
            while True:
                yield record
                if record.is_over:
                    return
                record = await self._ask(reader.changed)
        finally:
            reader.close()

    async def until_over(self) -> Record:
        """Wait until the job is over; return its last record."""
        found: Record | None = None
        async for record in self.records():
            found = record
        assert found is not None
        return found

    def events(self, after: int) -> AsyncGenerator[OutcomeEvent, None]:
        """Give the events behind sequence number ``after``, to the job's end.

        Raises JobEnded at the end of a job that lacks outcomes, ValueError if no event of the job
        has that number.
        """
        return self._read(
            after,
            lambda outcomes, at: outcomes.events(at, more=self._more),
            lambda event: event.seq,
        )

    def ordered(self, start: int) -> AsyncGenerator[Batch, None]:
        """Give the outcomes from item ``start`` on, in input order. Raises as ``events`` does."""
        return self._read(
            start,
            lambda outcomes, at: outcomes.ordered(at, more=self._more),
            lambda batch: batch.start + batch.count,
            is_item=True,
        )

    async def failures(self, start: int, limit: int) -> tuple[list[ErrorRecord], int | None]:
        """Return the errors of at most ``limit`` items, and the item to go on from."""
        try:
            _, reader = await self._ask(self._begin)
            return await reader.outcomes.failures(start, limit)
        finally:
            self._close()

    async def check_complete(self) -> None:
        """Raise JobEnded if a job that is over lacks outcomes, or failed as too many items did."""
        try:
            await self._check_complete()
        finally:
            self._close()

    # Inside

    async def _check_complete(self) -> None:
        record, reader = await self._begin()
        outcomes = reader.outcomes
        if record.state == "succeeded":
            if outcomes.index.done >= (record.total or 0):
                return
            if not await outcomes.complete():
                raise BrokerUnreachable("a replica of the stream of outcomes lags behind")
        done, _ = await outcomes.counts()
        too_many = record.max_failed is not None and record.state == "failed"
        if record.total is None or done < record.total or too_many:
            raise _ended(record, done)

    async def _read(
        self,
        at: int,
        open: Callable[[StoredOutcomes, int], AsyncIterator[T]],
        behind: Callable[[T], int],
        *,
        is_item: bool = False,
    ) -> AsyncGenerator[T, None]:
        """Give all parts from ``at`` on; after a broken read, go on behind the last one.

        is_item: whether ``at`` is an item, not a sequence number.
        """
        is_checked = False
        try:
            while True:
                try:
                    record, reader = await self._begin()
                    if not is_checked:
                        if is_item:
                            is_there = at <= (record.total or 0)
                        else:
                            is_there = await reader.outcomes.has_place(at)
                        if not is_there:
                            raise ValueError(f"job {self.id} has no position {at}")
                        is_checked = True
                    found = open(reader.outcomes, at)
                    try:
                        async for part in found:
                            self._silent_since = None
                            at = behind(part)
                            yield part
                    finally:
                        close = getattr(found, "aclose", None)
                        if close is not None:
                            await close()
                    await self._check_complete()
                    return
                except BrokerUnreachable as error:
                    await self._pause(error)
        finally:
            self._close()

    async def _begin(self) -> tuple[Record, JobReader]:
        if self._record is None:
            self._record = await self._get()
        record = self._record
        if record.state == "deleted":
            raise UnknownJob(f"job {self.id} does not exist any more: it was deleted")
        if record.state == "expired":
            raise _ended(record, 0)
        check_readable(record)
        if self._function and record.function != self._function:
            raise TypeError(f"job {self.id} runs {record.function}, not {self._function}")
        if self._reader is None:
            self._reader = self._jobs().reader(record)
        return record, self._reader

    async def _get(self) -> Record:
        """Read the record, as of the run that is followed from now on."""
        record = find_run(await self._jobs().get(self.id), self.run)
        self.run = record.run
        return record

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    async def _more(self) -> int | None:
        """Wait until there may be more; return the number of items once nothing more will come."""
        assert self._record is not None and self._reader is not None
        if not self._record.is_over:
            self._jobs()  # Raises where the cluster may not be used any more.
            self._record = await self._reader.changed()
            await self._begin()
            self._silent_since = None
        return (self._record.total or 0) if self._record.is_over else None

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                found = await ask()
            except BrokerUnreachable as error:
                await self._pause(error)
            else:
                self._silent_since = None
                return found

    async def _pause(self, error: BrokerUnreachable) -> None:
        """Pause before the next attempt; raise ``error`` once there were enough."""
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since > PATIENCE:
            raise error
        await asyncio.sleep(PAUSE)


def _ended(record: Record, done: int) -> JobEnded:
    state: str = record.state
    if state == "expired":
        text = "has expired, and its outcomes with it"
    elif state == "succeeded":
        state = "removed"
        text = f"succeeded, but only {done:,} of {record.total:,} outcomes are still in the store"
    else:
        text = "was cancelled" if record.state == "cancelled" else "failed"
        text += f" ({record.reason})" if record.reason else ""
        total = "an unknown number of" if record.total is None else f"{record.total:,}"
        text += f": {done:,} of {total} items have outcomes"
    return JobEnded(f"job {record.id} {text}", state=state)
