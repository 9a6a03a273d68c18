"""Jobs for code that is not async."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Literal, Self, overload

from jetmap.dispatch.outcomes import Outcome, X, Y
from jetmap.errors import ItemError

from .job import Job, JobStatus, JobStream

Wait = Callable[[Coroutine[Any, Any, Any]], Any]


class SyncJob(Generic[X, Y]):
    """As ``Job``, blocking. Made by ``SyncCluster.submit`` and ``SyncCluster.job``."""

    def __init__(self, wait: Wait, job: Job[X, Y]) -> None:
        self.id = job.id
        self._wait = wait
        self._job = job

    def status(self) -> JobStatus:
        """How far it is."""
        status: JobStatus = self._wait(self._job.status())
        return status

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Waits until it is over, however it ended. Raises TimeoutError; the job goes on."""
        status: JobStatus = self._wait(self._job.wait(timeout))
        return status

    @overload
    def results(self, return_exceptions: Literal[False] = False) -> list[Y]: ...
    @overload
    def results(self, return_exceptions: bool) -> list[Y | ItemError]: ...
    def results(self, return_exceptions: bool = False) -> list[Any]:
        """As ``Job.results``."""
        values: list[Any] = self._wait(self._job.results(return_exceptions))
        return values

    def stream(self, after: str | int | None = None, ordered: bool = False) -> SyncJobStream[Y]:
        """As ``Job.stream``: an iterator and a context manager."""
        return SyncJobStream(self._wait, self._job.stream(after, ordered))

    def cancel(self) -> JobStatus:
        """Ends it; the outcomes that there are stay. Harmless if it is over."""
        status: JobStatus = self._wait(self._job.cancel())
        return status

    def delete(self) -> None:
        """Cancels it, and removes its input and outcomes."""
        self._wait(self._job.delete())

    def __repr__(self) -> str:
        return f"SyncJob({self.id!r})"


class SyncJobStream(Generic[Y]):
    """As ``JobStream``, blocking; for one thread at a time."""

    def __init__(self, wait: Wait, stream: JobStream[Y]) -> None:
        self._wait = wait
        self._stream = stream

    @property
    def position(self) -> str:
        """Behind the last outcome that was taken: what ``stream(after=)`` wants to go on there."""
        return self._stream.position

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome[None, Y]:
        # The event loop fills it, but only while this thread waits.
        if not self._stream.is_ready and not self._wait(self._has_more()):
            raise StopIteration
        return self._stream.take()

    def close(self) -> None:
        """Reads no more."""
        self._wait(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def _has_more(self) -> bool:
        try:
            await self._stream.read()
        except StopAsyncIteration:
            return False
        return True
