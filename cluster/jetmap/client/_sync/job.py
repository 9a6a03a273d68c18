"""Blocking classes, made from ``client/job.py`` by ``scripts/unasync.py``."""

from __future__ import annotations

from typing import Any, Generic, Literal, Unpack, overload

from jetmap.client.blocking import BlockingStream, Wait
from jetmap.client.job import Job, JobStream
from jetmap.client.job_status import JobStatus
from jetmap.dispatch.outcomes import X, Y
from jetmap.errors import ItemError
from jetmap.jobs.changes import JobChanges


class SyncJob(Generic[X, Y]):
    """A map that goes on without its caller, made by ``SyncCluster.submit`` or ``SyncCluster.job``.

    Attributes:
        id: Identifies the job in any process, and in the gateway's addresses.

    Raises:
        UnknownJob: From every method, if there is no such job, or no longer.
        BrokerUnreachable: From every method, if the broker stays away for a minute.
    """

    def __init__(self, wait: Wait, job: Job[X, Y]) -> None:
        self.id = job.id
        self._wait = wait
        self._job = job

    def status(self) -> JobStatus:
        """Return the job's state and progress."""
        return self._wait(self._job.status())

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait until the job is over, however it ends.

        Args:
            timeout: Seconds to wait; None: no limit.

        Returns:
            The job's last status.

        Raises:
            TimeoutError: The job is not over yet; it goes on.
        """
        return self._wait(self._job.wait(timeout))

    @overload
    def results(
        self, return_exceptions: Literal[False] = False, *, run: int | None = None
    ) -> list[Y]: ...

    @overload
    def results(
        self, return_exceptions: bool, *, run: int | None = None
    ) -> list[Y | ItemError]: ...

    def results(self, return_exceptions: bool = False, *, run: int | None = None) -> list[Any]:
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
            TypeError: The job runs another function than the one given to ``SyncCluster.job``.
        """
        return self._wait(self._job.results(return_exceptions, run=run))

    def failures(self, limit: int | None = None, *, run: int | None = None) -> list[ItemError]:
        """Return the errors of the items that have failed so far, in input order.

        Args:
            limit: Return at most this number of them; None: all.
            run: The run whose outcomes are wanted; None: the latest.

        Returns:
            An ``ItemError`` for each; its ``index`` is the item's position in the input.
        """
        return self._wait(self._job.failures(limit, run=run))

    def retry(self) -> JobStatus:
        """Run the failed items again, and those without an outcome, as the job's next run.

        All others keep their outcomes. Readers of an earlier run still see what it had.

        Returns:
            The job's status after that.

        Raises:
            JobNotRetryable: The job is not over, has no failed items, or was cancelled.
        """
        return self._wait(self._job.retry())

    def stream(
        self, after: str | int | None = None, ordered: bool = False, *, run: int | None = None
    ) -> SyncJobStream[Y]:
        """Read outcomes: those that are there, then the others as they come.

        Args:
            after: The ``position`` of an earlier stream of this job, in any process. The new
                stream goes on behind it without a gap or a repeat.
            ordered: Give the outcomes in input order. The positions of ordered streams are of
                another kind.
            run: The run whose outcomes are wanted; None: that of ``after``, or the latest.

        Returns:
            An iterator, and a context manager, of ``Outcome``.

        Raises:
            ValueError: ``after`` is not a position of such a stream, or of another run.
        """

        async def start() -> JobStream[Y]:
            return self._job.stream(after, ordered, run=run)

        return SyncJobStream(self._wait, self._wait(start()))

    def pause(self) -> JobStatus:
        """Send nothing more of the job until ``resume``, whoever runs it; chunks under way end.

        Its timeout goes on. Does nothing if the job is over.

        Returns:
            The job's status after that.
        """
        return self._wait(self._job.pause())

    def resume(self) -> JobStatus:
        """Let a paused job go on.

        Returns:
            The job's status after that.
        """
        return self._wait(self._job.resume())

    def limit(self, max_parallel: int | None) -> JobStatus:
        """Change the cores that the job may use at most, also while it runs.

        Args:
            max_parallel: Cores, over the whole pool; None: no limit of its own.

        Returns:
            The job's status after that.
        """
        return self._wait(self._job.limit(max_parallel))

    def update(self, **changes: Unpack[JobChanges]) -> JobStatus:
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
        return self._wait(self._job.update(**changes))

    def cancel(self) -> JobStatus:
        """End the job and keep the outcomes that are there. Does nothing if it is over.

        Returns:
            The job's status after that.
        """
        return self._wait(self._job.cancel())

    def delete(self) -> None:
        """Cancel the job; remove its input and outcomes."""
        return self._wait(self._job.delete())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"


class SyncJobStream(BlockingStream[None, Y]):
    """An iterator, and a context manager, of ``Outcome`` (whose ``item`` is None).

    It ends with the job. Leaving it does not cancel the job. A failed item is an outcome with an
    ``error``; it does not raise.

    Raises:
        JobEnded: At the end, if the job ended without all its outcomes.
    """

    _stream: JobStream[Y]

    @property
    def position(self) -> str:
        """The place behind the last outcome that was given, for ``stream(after=)``.

        Unless the stream is ordered, it is the number of the last event that was read whole, like
        the gateway's ``Last-Event-ID``, and after a colon the number of outcomes of the next one.
        Before it stands the run, as in ``2/17:3``, unless that is the first.
        """
        return self._stream.position
