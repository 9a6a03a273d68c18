"""``Prefer: respond-async`` and ``wait=N`` on ``POST /map/{function}`` (RFC 7240).

The map is a job from the start, and its answer is awaited for N seconds. A preference may be
ignored. It is if there is no store, or no room in it; the request is then an ordinary map. ``wait``
is also ignored if the answer is a stream, which has begun by then; ``respond-async`` without
``wait`` is not. A job that was answered whole, or whose client has left, is removed, because its id
was never told; with an Idempotency-Key it stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from jetmap.dispatch.tolerance import FailureCount, Tolerance
from jetmap.errors import JetmapError, JobsUnavailable, MapTimeout, StoreFull
from jetmap.settings import LimitSettings

from .admission import PASSING_BYTES, Reservation
from .answers import ListAnswer
from .asgi import Receive, Scope, Send
from .disconnect import DisconnectWatcher
from .job_documents import accepted, as_format
from .job_follower import Follower, incomplete
from .job_request import JobRequest, job_of_map
from .outcomes import Outcomes
from .request import MapRequest, Preference
from .uploads import begin, store

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.jobs.record import Record
    from jetmap.jobs.service import Jobs
    from jetmap.jobs.upload import Upload

logger = logging.getLogger(__name__)


class Preferred:
    """A map that is run as a job."""

    def __init__(
        self,
        cluster: Cluster,
        upload: Upload,
        job: JobRequest,
        request: MapRequest,
        prefer: Preference,
        reservation: Reservation,
    ) -> None:
        self._cluster = cluster
        self._jobs = cluster.jobs
        self._upload = upload
        self._job = job
        self._request = request
        self._prefer = prefer
        self._reservation = reservation
        self._unwanted: str | None = None  # the id of a job to remove

    @classmethod
    async def begin(
        cls,
        cluster: Cluster,
        name: str,
        request: MapRequest,
        scope: Scope,
        reservation: Reservation,
    ) -> Preferred | None:
        """Begin the job; return None if an ordinary map is to run.

        Raises Problem, UnknownFunction, KeyBusy.
        """
        prefer = request.prefer
        if prefer is None or (prefer.wait and request.answer in ("jsonl", "sse")):
            return None
        job = job_of_map(request, scope)
        reservation.add(PASSING_BYTES)
        try:
            upload = await begin(cluster, name, job)
        except (JobsUnavailable, StoreFull) as exc:
            logger.debug("a preference is ignored: %s", exc)
            reservation.give(PASSING_BYTES)
            return None
        return cls(cluster, upload, job, request, prefer, reservation)

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        watcher: DisconnectWatcher,
        limits: LimitSettings,
        debug: bool,
    ) -> ListAnswer | None:
        """Return the answer, or send 202."""
        loop = asyncio.get_running_loop()
        most = limits.fitting(self._cluster.max_item)
        record = await store(self._upload, self._job, receive, watcher, most, self._reservation)
        self._reservation.hold(0)
        self._reservation.give(PASSING_BYTES)
        begun = loop.time()
        kept = self._job.key is not None
        try:
            if self._prefer.wait:
                watcher.watch(receive)
                answer = await self._gather(record, begun + self._prefer.wait, limits, debug)
                if answer is not None:
                    answer.headers.append((b"preference-applied", self._prefer.applied()))
                    return answer
                record = await self._jobs.get(record.id)
            kept = True
            headers = [(b"preference-applied", self._prefer.applied())]
            await accepted(send, scope, record, headers)
            return None
        finally:
            if not kept:
                self._unwanted = record.id

    async def aclose(self) -> None:
        """Remove the job if it is of no use any more, once the answer has been sent."""
        if self._unwanted is None:
            return
        try:
            await self._jobs.delete(self._unwanted)
        except JetmapError as exc:
            logger.info("job %s stays until its time is over: %s", self._unwanted, exc)

    async def _gather(
        self, record: Record, until: float, limits: LimitSettings, debug: bool
    ) -> ListAnswer | None:
        """Return the answer that the map would give; None if it is not there in time."""
        request = self._request
        format = as_format(request.answer)
        answer = ListAnswer(
            format, limits, self._reservation, collect=not request.fail, debug=debug
        )
        try:
            async with asyncio.timeout_at(until) as patience:
                await answer.gather(JobRun(self._jobs, record), record.format)
            return answer
        except TimeoutError:
            answer.close()
            if patience.expired():
                return None
            raise
        except BaseException:
            answer.close()
            raise


class JobRun:
    """A job's outcomes, in the order in which they come, as those of a map."""

    def __init__(self, jobs: Jobs, record: Record) -> None:
        self.id = record.id
        self._follower = Follower(jobs, record)

    @property
    def total(self) -> int | None:
        return self._follower.record.total

    async def __aiter__(self) -> AsyncIterator[Outcomes]:
        done = 0
        failures = FailureCount(None, self.total)
        async for event in self._follower.outcomes.events(0, more=self._follower.more):
            done = event.done
            for batch in event.batches:
                failures.add(batch.errors, done)
                yield batch
            self._follower.news()
        record = self._follower.record
        failed = record.max_failed is not None and record.state == "failed"
        if done < (record.total or 0) or failed:
            if _ran_out_of_time(record):
                raise MapTimeout(f"the map took longer than {record.timeout} s")
            if failed:  # By now: max_failed can be changed while the job runs.
                failures.tolerance = Tolerance.of(record.max_failed)
                failures.add((), done)
            raise incomplete(record, done)

    def stop(self, before: int = 0) -> None:
        """Let the rest of the job run; outcomes still come."""

    async def aclose(self) -> None:
        """Stop reading; the job runs on."""
        self._follower.close()


def _ran_out_of_time(record: Record) -> bool:
    if record.timeout is None or record.state != "failed":
        return False
    if record.started is None or record.finished is None:
        return record.finished is not None and record.finished - record.created >= record.timeout
    return record.finished - record.started >= record.timeout
