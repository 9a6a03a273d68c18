"""Run the jobs that this dispatcher owns, and take over jobs without an owner."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from jetmap.background import Background
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.dispatch.open_map import MapSpec, OpenMap
from jetmap.errors import (
    BrokerUnreachable,
    ClusterClosed,
    JetmapError,
    MapTimeout,
    NoRoom,
    NoWorkers,
    UnknownFunction,
    WorkerStartFailed,
)
from jetmap.wire import subjects
from jetmap.wire.messages import Report, encode

from .catalogue import Catalogue, is_adoptable
from .outcome_index import OutcomeIndex
from .outcomes import Outcomes
from .record import Record, State, as_running, as_waiting
from .running_job import RunningJob, timeout_message
from .store import Conflict, Store
from .stored_input import StoredInput

logger = logging.getLogger(__name__)

# Seconds between records of a job's progress.
PROGRESS_SECONDS = 1.0
# Seconds of a job's timeout that its next owner may count again.
ELAPSED_SECONDS = 5.0
# Seconds between looks for workers that have the function.
WORKERS_SECONDS = 2.0
# Seconds for existing workers to announce themselves to a process that has just joined.
ARRIVAL_SECONDS = 0.25
# Seconds between attempts while the broker has no room.
ROOM_SECONDS = 2.0
# Values of ``Record.waiting_for``.
WORKERS = "workers"
ROOM = "room"
FULL = (
    "the NATS server has no room for outcomes: delete finished jobs, or give the server more "
    "room; nothing is lost meanwhile"
)

replace = msgspec.structs.replace


class JobRunner:
    """Runs jobs, each around an open map.

    weight: one job's share of the cores, where a map has 1. most: jobs that run at once. room:
    called before a job takes more of the store than its reservation, with the bytes and a
    function that stores its record; returns a larger reservation, or raises StoreFull.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: Store,
        catalogue: Catalogue,
        *,
        weight: float,
        most: int,
        room: Callable[[Record, int, Callable[[Record], Awaitable[int]]], Awaitable[int]],
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._catalogue = catalogue
        self._weight = weight
        self._most = most
        self._room = room
        self._runs: dict[str, RunningJob] = {}
        self._ready: dict[str, None] = {}  # Jobs that may run here, in order of arrival.
        self._background = Background("jobs that run here")
        self._closing = False

    @property
    def is_busy(self) -> bool:
        return bool(self._runs or self._ready)

    def on_record(self, record: Record) -> None:
        """React to a changed record, whoever wrote it."""
        me = self._dispatcher.id
        running = self._runs.get(record.id)
        if (
            running is not None
            and record not in (running.record, running.writing)
            and (record.is_over or record.owner != me or record.epoch != running.record.epoch)
        ):
            # Somebody has cancelled it, or taken it over while this process was unreachable.
            running.stop()
        if record.state in ("queued", "running") and record.owner in (me, ""):
            self._ready.setdefault(record.id)
            self.fill()
        elif record.is_over:
            self._ready.pop(record.id, None)

    def adopt(self, alive: set[str]) -> None:
        """Take over jobs whose owner is gone, and resume own jobs that do not run.

        alive: dispatchers that hold a lease.
        """
        me = self._dispatcher.id
        for record in self._catalogue:
            ours = record.owner == me and record.state in ("queued", "running")
            if ours or is_adoptable(record, me, alive):
                self._ready.setdefault(record.id)
        self.fill()

    def fill(self) -> None:
        """Start waiting jobs, up to the number that may run at once."""
        while self._ready and self._has_slot and not self._closing:
            job = next(iter(self._ready))
            del self._ready[job]
            record = self._catalogue.get(job)
            if record is None or job in self._runs or record.state not in ("queued", "running"):
                continue
            running = RunningJob(record)
            self._runs[job] = running
            running.task = self._background.spawn(self._run_job(running), f"job {job}")

    @property
    def _has_slot(self) -> bool:
        """Whether one more job may run. Jobs that wait for workers do not count."""
        return sum(not running.is_waiting for running in self._runs.values()) < self._most

    def parked(self) -> list[tuple[str, int]]:
        """Function and unfinished items of each job here that has no open map."""
        waiting = [c.record for c in self._runs.values() if c.run is None]
        waiting += filter(None, (self._catalogue.get(job) for job in self._ready))
        return [(r.function, r.total - r.done) for r in waiting if r.total is not None]

    async def close(self) -> None:
        """Release every job, so that other processes take them over at once."""
        self._closing = True
        await self._background.close()
        if not self._store.connection.connected:
            return
        me = self._dispatcher.id
        for record in list(self._catalogue):
            if record.owner == me and record.state in ("queued", "running"):
                try:
                    seq = self._catalogue.seq(record.id)
                    await self._store.write(replace(record, owner=""), seq)
                except JetmapError as error:
                    logger.debug("cannot release job %s: %s", record.id, error)

    async def _run_job(self, running: RunningJob) -> None:
        job = running.record.id
        try:
            if await self._own(running):
                await self._run_map(running)
        except Conflict:
            logger.info("job %s now runs elsewhere", job)
        except (BrokerUnreachable, ClusterClosed) as error:
            logger.info("job %s: %s; it will be resumed", job, error)
            self._ready.setdefault(job)
        except MapTimeout:
            await self._end(running, "failed", timeout_message(running.record))
        except JetmapError as error:
            await self._end(running, "failed", str(error))
        finally:
            del self._runs[job]
            if not self._closing:
                asyncio.get_running_loop().call_soon(self.fill)

    async def _own(self, running: RunningJob) -> bool:
        """Make this dispatcher the owner, under a new epoch. False: somebody else was faster."""
        record, seq = await self._store.read(running.record.id)
        if record is None or record.state not in ("queued", "running"):
            return False
        me = self._dispatcher.id
        known = running.record
        if record.owner not in (me, "", known.owner) or record.epoch != known.epoch:
            return False  # Somebody was faster.
        now = time.time()
        running.elapsed_before = record.elapsed
        running.took_over = record.epoch > 0
        running.base = record.stored
        running.record = replace(
            record,
            owner=me,
            epoch=record.epoch + 1,
            state="running",
            reserved=record.reserved
            - record.claimed,  # Its last owner no longer uses what it claimed.
            claimed=0,
        )
        lack = await self._lack_of_workers_now(record.function)
        if lack is not None:
            running.record = as_waiting(running.record, WORKERS, lack, now)
        elif not record.waiting_for:
            running.record = as_running(running.record, now)
        await self._write(running, running.record, seq)
        if running.took_over:
            was = f"was running on {record.owner}" if record.owner else "was released"
            logger.warning(
                "job %s of %s is taken over here; it %s", record.id, record.function, was
            )
            await self._dispatcher.recall(subjects.job_map(record.id, record.epoch))
        return True

    async def _run_map(self, running: RunningJob) -> None:
        record = running.record
        index = OutcomeIndex()
        if running.took_over:
            outcomes = Outcomes(self._store, record.id, record.format)
            if not await outcomes.complete():
                logger.info(
                    "job %s: outcomes that a replica still lacks are computed again", record.id
                )
            index = outcomes.index
            # More was stored than its last owner had recorded.
            running.base = max(running.base, record.input_bytes + index.stored)
        running.failed_before = index.failed
        seen = index.ranges()
        source = StoredInput(self._store, record, seen)
        try:
            run = await self._open(running, source, seen)
            if run is None:
                return
            running.run = run
            reader = Outcomes(self._store, record.id, record.format, index)

            async def stored() -> list[tuple[int, int]]:
                await reader.complete()
                return reader.index.ranges()

            run.stored = stored
            progress = asyncio.get_running_loop().create_task(self._progress(running))
            try:
                async with run:
                    async for batch in run:
                        if batch.values:
                            # An error decided by this dispatcher, so no agent has stored it.
                            report = Report(
                                run.id,
                                0,
                                0,
                                batch.start,
                                batch.count,
                                batch.values,
                                batch.errors,
                                0.0,
                            )
                            subject = subjects.job_outcomes(self._store.pool, record.id)
                            message = encode(report)
                            await self._until_room(
                                lambda: self._store.append(subject, message)  # noqa: B023
                            )
                # A write in flight must be answered before the last one.
                running.over.set()
                await progress
            finally:
                progress.cancel()
                await asyncio.gather(progress, return_exceptions=True)
            if not running.stopped:
                if running.stored(run) > running.record.reserved:
                    await self._more(running, running.stored(run))
                await self._finish(running, run)
        finally:
            await source.aclose()

    async def _open(
        self, running: RunningJob, source: StoredInput, seen: list[tuple[int, int]]
    ) -> OpenMap | None:
        record = running.record
        while not running.stopped:
            timeout = None
            if record.timeout is not None:
                timeout = record.timeout - running.elapsed
                if timeout <= 0:
                    raise MapTimeout(timeout_message(record))
            try:
                spec = MapSpec(
                    function=record.function,
                    format=record.format,
                    kwargs=record.kwargs,
                    timeout=timeout,
                    weight=self._weight,
                )
                id = subjects.job_map(record.id, record.epoch)
                run = await self._dispatcher.open(spec, source, id=id, seen=seen)
            except (NoWorkers, UnknownFunction, WorkerStartFailed) as error:
                logger.info("job %s waits: %s", record.id, error)
                await self._show_waiting(running, str(error))
                await self._wait_for_workers(running, timeout)
            else:
                await self._show_waiting(running, None)
                return run
        return None

    async def _lack_of_workers_now(self, function: str) -> str | None:
        """As ``_lack_of_workers``, but allow time for announcements: this process may be new."""
        agents = self._dispatcher.agents
        await agents.wait_for(
            lambda: agents.roster.offer(function, None) is not None, ARRIVAL_SECONDS
        )
        return self._lack_of_workers(function)

    def _lack_of_workers(self, function: str) -> str | None:
        """The reason why no worker can run a function now, or None."""
        agents = self._dispatcher.agents
        if agents.roster.offer(function, None) is not None:
            return None
        failed = agents.failure(function)
        return str(failed) if failed is not None else str(agents.no_workers(function))

    async def _show_waiting(
        self, running: RunningJob, lack: str | None, what: str = WORKERS
    ) -> None:
        """Record what a job waits for, and why, or that it runs again."""
        record, now = running.record, time.time()
        if lack is None and not record.waiting_for and record.started is not None:
            return
        shown = as_running(record, now)
        if lack is not None:
            shown = as_waiting(record, what, lack, now)
            if (record.waiting_for, record.reason) == (shown.waiting_for, shown.reason):
                return
        try:
            await self._write(running, shown, running.seq)
        except BrokerUnreachable as error:
            logger.debug("job %s: cannot record whether it waits: %s", record.id, error)

    async def _wait_for_workers(self, running: RunningJob, timeout: float | None) -> None:
        """Pause a job without workers, and let others run meanwhile."""
        running.is_waiting = True
        self.fill()
        try:
            pause = WORKERS_SECONDS
            while True:
                await asyncio.sleep(pause if timeout is None else min(pause, timeout))
                if self._has_slot or (timeout is not None and timeout <= pause):
                    return
        finally:
            running.is_waiting = False

    async def _progress(self, running: RunningJob) -> None:
        """Record progress every second, and end a job that outgrows its reservation."""
        while not running.stopped:
            try:
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await running.over.wait()
                return
            except TimeoutError:
                run = running.run
            if run is None:
                return
            try:
                what, lack = WORKERS, self._lack_of_workers(running.record.function)
                if lack is None:
                    what, lack = ROOM, await self._lack_of_room(running)
                await self._show_waiting(running, lack, what)
            except Conflict:
                running.stop()
                return
            except BrokerUnreachable as error:
                logger.debug(
                    "job %s: cannot tell whether the broker has room: %s", running.record.id, error
                )
            done, record = run.done, running.record
            is_timed = record.timeout is not None
            if done == record.done and not (
                is_timed and running.elapsed - record.elapsed > ELAPSED_SECONDS
            ):
                continue
            try:
                stored = running.stored(run)
                reserved = record.reserved
                if stored > reserved:
                    reserved = await self._more(running, stored)
                counted = replace(
                    record,
                    done=done,
                    failed=running.failed_before + run.ledger.failed,
                    stored=stored,
                    reserved=reserved,
                    elapsed=running.elapsed,
                    updated=time.time(),
                )
                await self._write(running, counted, running.seq)
            except Conflict:
                running.stop()
            except BrokerUnreachable as error:
                logger.debug("job %s: cannot record progress: %s", record.id, error)
            except JetmapError as error:
                await self._end(running, "failed", str(error))
                running.stop()

    async def _until_room(self, ask: Callable[[], Awaitable[int]]) -> int:
        """Store something as soon as the broker has room: a full store does not end a job."""
        while True:
            try:
                return await ask()
            except NoRoom as error:
                logger.info("a job waits for room: %s", error)
            await asyncio.sleep(ROOM_SECONDS)

    async def _lack_of_room(self, running: RunningJob) -> str | None:
        """Check why outcomes cannot be stored, once none arrived for a while; None: they can."""
        run, now = running.run, time.monotonic()
        if run is None or run.done != running.looked_done:
            running.looked_done, running.looked_at = (0 if run is None else run.done), now
            return None
        if now - running.looked_at < ROOM_SECONDS:
            return running.lack_of_room
        running.looked_at = now
        has_room = await self._store.spare.probe_room()
        running.lack_of_room = None if has_room else FULL
        return running.lack_of_room

    async def _more(self, running: RunningJob, stored: int) -> int:
        async def write(record: Record) -> int:
            await self._write(running, record, running.seq)
            return running.seq

        return await self._room(running.record, stored, write)

    async def _finish(self, running: RunningJob, run: OpenMap) -> None:
        """End a job whose outcomes are all stored. Count again where an item may have two."""
        record = running.record
        ledger = run.ledger
        done, failed = run.done, running.failed_before + ledger.failed
        if running.took_over or ledger.repeats:
            outcomes = Outcomes(self._store, record.id, record.format)
            await outcomes.complete()
            done, failed = outcomes.index.done, outcomes.index.failed
        state: State = "failed" if failed else "succeeded"
        reason = f"{failed} of {done} items failed" if failed else None
        await self._end(running, state, reason, done, failed)

    async def _end(
        self,
        running: RunningJob,
        state: State,
        reason: str | None,
        done: int | None = None,
        failed: int | None = None,
    ) -> None:
        record = running.record
        run = running.run
        if run is not None and done is None:
            done, failed = run.done, running.failed_before + run.ledger.failed
        now = time.time()
        if record.started is not None:
            record = as_running(record, now)
        stored = running.base if run is None else running.stored(run)
        over = replace(
            record,
            state=state,
            reason=reason,
            done=record.done if done is None else done,
            failed=record.failed if failed is None else failed,
            stored=stored - record.input_bytes,
            reserved=stored - record.input_bytes,
            claimed=0,
            finished=now,
            updated=now,
            owner="",
            waiting_for=None,
        )
        await self._write(running, over, running.seq)
        log = logger.info if state == "succeeded" else logger.warning
        log(
            "job %s of %s has %s%s",
            record.id,
            record.function,
            state,
            f": {reason}" if reason else "",
        )
        await self._store.remove_input(record.id)

    async def _write(self, running: RunningJob, record: Record, after: int) -> None:
        """Store the record, even if the reply to an own earlier write was lost.

        Raises Conflict: somebody else has decided on the job meanwhile.
        """
        ttl = record.ttl if record.is_over else None
        running.writing = record
        while True:
            try:
                running.seq = await self._until_room(
                    lambda after=after: self._store.write(record, after, ttl=ttl)  # type: ignore[misc]
                )
                break
            except Conflict:
                there, after = await self._store.read(record.id)
                if (
                    there is None
                    or there.is_over
                    or (there.owner, there.epoch) != (self._dispatcher.id, record.epoch)
                ):
                    raise
        running.record = record
        self._catalogue.on_record(record, running.seq)
