"""Jobs as Python callers hold them."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, Literal, Unpack, overload

from jetmap import bounds
from jetmap.dispatch.outcomes import Batch, Outcome, X, Y, item_error
from jetmap.errors import ItemError

from .call import Call, first_error
from .job_follower import JobFollower
from .job_status import JobStatus
from .stream import OutcomeStream

if TYPE_CHECKING:
    from jetmap.jobs.changes import JobChanges
    from jetmap.jobs.outcomes import OutcomeEvent
    from jetmap.jobs.service import Jobs


class Job(Generic[X, Y]):
    """A map that goes on without its caller, made by ``Cluster.submit`` or ``Cluster.job``.

    ``await job`` gives its results.

    Attributes:
        id: Identifies the job in any process, and in the gateway's addresses.

    Raises:
        UnknownJob: From every method, if there is no such job, or no longer.
        BrokerUnreachable: From every method, if the broker stays away for a minute.
    """

    def __init__(self, id: str, jobs: Callable[[], Jobs], call: Call) -> None:
        self.id = id
        self._jobs = jobs
        self._call = call

    async def status(self) -> JobStatus:
        """Return the job's state and progress."""
        return JobStatus.of(await self._jobs().get(self.id))

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait until the job is over, however it ends.

        Args:
            timeout: Seconds to wait; None: no limit.

        Returns:
            The job's last status.

        Raises:
            TimeoutError: The job is not over yet; it goes on.
        """
        try:
            async with asyncio.timeout(bounds.PATIENCE.check_optional("timeout", timeout)) as limit:
                return JobStatus.of(await self._follower().until_over())
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"job {self.id} is not over after {timeout:g} s; it goes on"
            ) from error

    @overload
    async def results(
        self, return_exceptions: Literal[False] = False, *, run: int | None = None
    ) -> list[Y]: ...
    @overload
    async def results(
        self, return_exceptions: bool, *, run: int | None = None
    ) -> list[Y | ItemError]: ...
    async def results(
        self, return_exceptions: bool = False, *, run: int | None = None
    ) -> list[Any]:
        """Wait until the job is over; return the values in input order.

        Args:
            return_exceptions: Put an ``ItemError`` in the place of each failed item instead of
                raising the first one. A job with ``max_failed`` does so in any case.
            run: The run whose outcomes are wanted; None: the latest when this is called.

        Returns:
            A list as long as the input; its element i is the value of item i.

        Raises:
            ItemError: An item failed. This is the first failed item's error.
            JobEnded: The job ended without all its outcomes, or with more failed items than its
                ``max_failed``.
            TypeError: The job runs another function than the one given to ``Cluster.job``.
        """
        follower = self._follower(run)
        values: list[Any] = []
        error = None
        async with aclosing(follower.ordered(0)) as batches:
            async for batch in batches:
                decoded = follower.values(self._call, batch)
                keeps_errors = return_exceptions or follower.tolerates
                if not keeps_errors and (error := first_error(decoded)) is not None:
                    break
                values += decoded
        if error is not None:
            # The outcomes behind the error were not read, but the job must be over.
            last = self._follower(follower.run)
            await last.until_over()
            await last.check_complete()
            raise error
        return values

    async def failures(
        self, limit: int | None = None, *, run: int | None = None
    ) -> list[ItemError]:
        """Return the errors of the items that have failed so far, in input order.

        Args:
            limit: Return at most this number of them; None: all.
            run: The run whose outcomes are wanted; None: the latest.

        Returns:
            An ``ItemError`` for each; its ``index`` is the item's position in the input.
        """
        most = sys.maxsize if limit is None else bounds.START.check("limit", limit)
        found, _ = await self._follower(run).failures(0, most)
        return [item_error(record, trusted=self._call.trusted) for record in found]

    async def retry(self) -> JobStatus:
        """Run the failed items again, and those without an outcome, as the job's next run.

        All others keep their outcomes. Readers of an earlier run still see what it had.

        Returns:
            The job's status after that.

        Raises:
            JobNotRetryable: The job is not over, has no failed items, or was cancelled.
        """
        return JobStatus.of(await self._jobs().retry(self.id))

    def stream(
        self, after: str | int | None = None, ordered: bool = False, *, run: int | None = None
    ) -> JobStream[Y]:
        """Read outcomes: those that are there, then the others as they come.

        Args:
            after: The ``position`` of an earlier stream of this job, in any process. The new
                stream goes on behind it without a gap or a repeat.
            ordered: Give the outcomes in input order. The positions of ordered streams are of
                another kind.
            run: The run whose outcomes are wanted; None: that of ``after``, or the latest.

        Returns:
            An async iterator, and an async context manager, of ``Outcome``.

        Raises:
            ValueError: ``after`` is not a position of such a stream, or of another run.
        """
        pinned, at, given = _parsed(after, ordered)
        if run is not None and pinned is not None and run != pinned:
            raise ValueError(f"{after!r} is a position in run {pinned}, not in run {run}")
        follower = self._follower(pinned if run is None else run)
        return JobStream(follower, self._call, at, given, ordered)

    async def pause(self) -> JobStatus:
        """Send nothing more of the job until ``resume``, whoever runs it; chunks under way end.

        Its timeout goes on. Does nothing if the job is over.

        Returns:
            The job's status after that.
        """
        return JobStatus.of(await self._jobs().steer(self.id, paused=True))

    async def resume(self) -> JobStatus:
        """Let a paused job go on.

        Returns:
            The job's status after that.
        """
        return JobStatus.of(await self._jobs().steer(self.id, paused=False))

    async def limit(self, max_parallel: int | None) -> JobStatus:
        """Change the cores that the job may use at most, also while it runs.

        Args:
            max_parallel: Cores, over the whole pool; None: no limit of its own.

        Returns:
            The job's status after that.
        """
        cores = bounds.PARALLEL.check_optional("max_parallel", max_parallel)
        return JobStatus.of(await self._jobs().steer(self.id, max_parallel=cores))

    async def update(self, **changes: Unpack[JobChanges]) -> JobStatus:
        """Change the job's limits and labels, also while it runs; what is not named stays.

        Args:
            max_parallel: Cores that it may use at most; None: no limit of its own.
            max_failed: Items that may fail, a number or a share such as ``"5%"``; None: any number,
                but one makes it a failed job. If more have failed already, the job ends with its
                next outcome.
            labels: Values of labels, by name. None as a value removes that label, None in the place
                of them all removes all.

        Returns:
            The job's status after that.

        Raises:
            JobOver: The job is over.
            TypeError, ValueError: A value is wrong; nothing was changed.
        """
        return JobStatus.of(await self._jobs().update(self.id, changes))

    async def cancel(self) -> JobStatus:
        """End the job and keep the outcomes that are there. Does nothing if it is over.

        Returns:
            The job's status after that.
        """
        return JobStatus.of(await self._jobs().cancel(self.id))

    async def delete(self) -> None:
        """Cancel the job; remove its input and outcomes."""
        await self._jobs().delete(self.id)

    def __await__(self) -> Generator[Any, None, list[Y]]:
        return self.results().__await__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def _follower(self, run: int | None = None) -> JobFollower:
        name = self._call.function.name if self._call.function is not None else ""
        bounds.RUN.check_optional("run", run)
        return JobFollower(self.id, self._jobs, name, run)


class JobStream(OutcomeStream[None, Y]):
    """An async iterator, and an async context manager, of ``Outcome`` (whose ``item`` is None).

    It ends with the job. Leaving it does not cancel the job. A failed item is an outcome with an
    ``error``; it does not raise.

    Raises:
        JobEnded: At the end, if the job ended without all its outcomes.
    """

    def __init__(
        self, follower: JobFollower, call: Call, at: int, given: int, ordered: bool
    ) -> None:
        super().__init__()
        self._follower = follower
        self._call = call
        self._ordered = ordered
        # Everything up to _at was given before, and _given more outcomes of the part that follows.
        self._at, self._given = at, given
        # End and length of that part, once it was read.
        self._part: tuple[int, int] | None = None
        self._parts: AsyncGenerator[Any, None] | None = None
        self._closed = False

    @property
    def position(self) -> str:
        """The place behind the last outcome that was given, for ``stream(after=)``.

        Unless the stream is ordered, it is the number of the last event that was read whole, like
        the gateway's ``Last-Event-ID``, and after a colon the number of outcomes of the next one.
        Before it stands the run, as in ``2/17:3``, unless that is the first.
        """
        at, given = self._place()
        run = self._follower.run
        pinned = f"{run}/" if run is not None and run > 1 else ""
        if self._ordered:
            return f"{pinned}@{at + given}"
        return f"{pinned}{at}:{given}" if given else f"{pinned}{at}"

    async def aclose(self) -> None:
        """Stop reading. A second call does nothing."""
        self._closed = True
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.aclose()

    def _place(self) -> tuple[int, int]:
        if self._part is None:
            return self._at, self._given
        end, length = self._part
        return (self._at, length - len(self.ready)) if self.ready else (end, 0)

    async def _read(self) -> None:
        while not self.ready:
            if self._closed:
                raise StopAsyncIteration
            follower = self._follower
            follower.check()
            self._at, self._given = self._place()
            self._part = None
            if self._parts is None:
                self._parts = (
                    follower.ordered(self._at) if self._ordered else follower.events(self._at)
                )
            try:
                part = await anext(self._parts)
            except StopAsyncIteration:
                self._closed = True
                raise
            except BaseException:
                # An error, or a cancellation, has ended the generator: a new one goes on there.
                self._parts = None
                raise
            self._add(part)

    def _add(self, part: OutcomeEvent | Batch) -> None:
        if isinstance(part, Batch):
            batches, end = [part], part.start + part.count
        else:
            batches, end = part.batches, part.seq
        found: list[Outcome[None, Y]] = []
        for batch in batches:
            values = self._follower.values(self._call, batch)
            for index, value in enumerate(values, batch.start):
                if isinstance(value, ItemError):
                    found.append(Outcome(index, None, None, value, batch.tries))
                else:
                    found.append(Outcome(index, None, value, None, batch.tries))
        if self._given > len(found):
            raise ValueError(f"job {self._follower.id} has no position {self._at}:{self._given}")
        self._part = end, len(found)
        self.ready.extend(found[self._given :])


def _parsed(after: str | int | None, ordered: bool) -> tuple[int | None, int, int]:
    """Return the run, where to begin, and how many outcomes from there to leave out."""
    if after is None:
        return None, 0, 0
    pattern = r"(?:(\d+)/)?" + (r"@(\d+)()" if ordered else r"(\d+)(?::(\d+))?")
    found = re.fullmatch(pattern, str(after), re.ASCII)
    if found is None:
        kind = "an ordered" if ordered else "an unordered"
        raise ValueError(f"{after!r} is not a position of {kind} stream")
    return int(found[1] or 1), int(found[2]), int(found[3] or 0)
