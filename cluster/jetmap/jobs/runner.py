"""Carries jobs: runs those that this dispatcher owns, and takes over those that nobody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

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

from .catalogue import Catalogue, adoptable
from .outcome_index import Fold
from .outcomes import Outcomes
from .record import Record, State, as_running, as_waiting
from .running_job import Carried, late
from .store import Conflict, Store
from .stored_input import StoredInput

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 1.0
ELAPSED_SECONDS = 5.0  # Of a job's timeout, that its next owner may not know of.
WORKERS_SECONDS = 2.0  # Between looks for workers that have the function.
ARRIVAL_SECONDS = 0.25  # For workers that are there already to say so.
ROOM_SECONDS = 2.0  # Between attempts while the broker has no room.
WORKERS = "workers"  # What such a job waits for.
ROOM = "room"
FULL = (
    "the NATS server has no room for outcomes: delete jobs that are over, or give the server more "
    "room; nothing is lost meanwhile"
)

replace = msgspec.structs.replace


class Carrier:
    """weight: the share of the cores of one job beside a map's 1. most: jobs that run at once.

    room: called before a job takes more of the store than is reserved for it, with the bytes
    and with what stores its record; returns a larger reservation, or raises StoreFull.
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
        self._runs: dict[str, Carried] = {}
        self._ready: dict[str, None] = {}  # Jobs that we may carry, the first come first.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    @property
    def is_busy(self) -> bool:
        return bool(self._runs or self._ready)

    def heard(self, record: Record) -> None:
        """A record has changed, by whoever's hand."""
        me = self._dispatcher.id
        carried = self._runs.get(record.id)
        if (
            carried is not None
            and record not in (carried.record, carried.writing)
            and (record.is_over or record.owner != me or record.epoch != carried.record.epoch)
        ):
            # Somebody has cancelled it, or taken it over while we were out of reach.
            carried.stop()
        if record.state in ("queued", "running") and record.owner in (me, ""):
            self._ready.setdefault(record.id)
            self.fill()
        elif record.is_over:
            self._ready.pop(record.id, None)

    def adopt(self, alive: set[str]) -> None:
        """Takes over what belongs to nobody who lives, and up what is ours and does not run."""
        me = self._dispatcher.id
        for record in self._catalogue:
            ours = record.owner == me and record.state in ("queued", "running")
            if ours or adoptable(record, me, alive):
                self._ready.setdefault(record.id)
        self.fill()

    def fill(self) -> None:
        """Starts as many jobs as may run at once."""
        while self._ready and self._has_room and not self._closing:
            job = next(iter(self._ready))
            del self._ready[job]
            record = self._catalogue.get(job)
            if record is None or job in self._runs or record.state not in ("queued", "running"):
                continue
            carried = Carried(record)
            self._runs[job] = carried
            task = asyncio.get_running_loop().create_task(self._carry(carried), name=f"job {job}")
            carried.task = task
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    @property
    def _has_room(self) -> bool:
        """Whether one more may run. Those that wait for workers do not count."""
        return sum(not carried.is_waiting for carried in self._runs.values()) < self._most

    def parked(self) -> list[tuple[str, int]]:
        """Function and unfinished items of each job that has no open map here, only a place."""
        waiting = [c.record for c in self._runs.values() if c.run is None]
        waiting += filter(None, (self._catalogue.get(job) for job in self._ready))
        return [(r.function, r.total - r.done) for r in waiting if r.total is not None]

    async def close(self) -> None:
        """Lets go of every job; others take them over at once."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._store.connection.connected:
            return
        me = self._dispatcher.id
        for record in list(self._catalogue):
            if record.owner == me and record.state in ("queued", "running"):
                try:
                    seq = self._catalogue.seq(record.id)
                    await self._store.write(replace(record, owner=""), seq)
                except JetmapError as error:
                    logger.debug("job %s not let go: %s", record.id, error)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("carrying a job failed", exc_info=error)

    async def _carry(self, carried: Carried) -> None:
        job = carried.record.id
        try:
            if await self._own(carried):
                await self._run(carried)
        except Conflict:
            logger.info("job %s is carried by somebody else now", job)
        except (BrokerUnreachable, ClusterClosed) as error:
            logger.info("job %s: %s; it will be taken up again", job, error)
            self._ready.setdefault(job)
        except MapTimeout:
            await self._end(carried, "failed", late(carried.record))
        except JetmapError as error:
            await self._end(carried, "failed", str(error))
        finally:
            del self._runs[job]
            if not self._closing:
                asyncio.get_running_loop().call_soon(self.fill)

    async def _own(self, carried: Carried) -> bool:
        """Makes this dispatcher the owner, under a new epoch."""
        record, seq = await self._store.read(carried.record.id)
        if record is None or record.state not in ("queued", "running"):
            return False
        me = self._dispatcher.id
        known = carried.record
        if record.owner not in (me, "", known.owner) or record.epoch != known.epoch:
            return False  # Somebody was faster.
        now = time.time()
        carried.elapsed_before = record.elapsed
        carried.took_over = record.epoch > 0
        carried.base = record.stored
        carried.record = replace(
            record,
            owner=me,
            epoch=record.epoch + 1,
            state="running",
            reserved=record.reserved - record.claimed,  # Who asked for it does not use it now.
            claimed=0,
        )
        lack = await self._lack_of_workers_now(record.function)
        if lack is not None:
            carried.record = as_waiting(carried.record, WORKERS, lack, now)
        elif not record.waiting_for:
            carried.record = as_running(carried.record, now)
        await self._write(carried, carried.record, seq)
        if carried.took_over:
            was = f"was carried by {record.owner}" if record.owner else "was let go"
            logger.warning(
                "job %s of %s is taken over here; it %s", record.id, record.function, was
            )
            await self._dispatcher.recall(subjects.job_map(record.id, record.epoch))
        return True

    async def _run(self, carried: Carried) -> None:
        record = carried.record
        fold = Fold()
        if carried.took_over:
            outcomes = Outcomes(self._store, record.id, record.format)
            if not await outcomes.complete():
                logger.info("job %s: what a replica still lacks of it runs again", record.id)
            fold = outcomes.fold
            # More was stored than its owner has written down.
            carried.base = max(carried.base, record.input_bytes + fold.stored)
        carried.failed_before = fold.failed
        seen = fold.ranges()
        source = StoredInput(self._store, record, seen)
        try:
            run = await self._open(carried, source, seen)
            if run is None:
                return
            carried.run = run
            reader = Outcomes(self._store, record.id, record.format, fold)

            async def stored() -> list[tuple[int, int]]:
                await reader.complete()
                return reader.fold.ranges()

            run.stored = stored
            progress = asyncio.get_running_loop().create_task(self._progress(carried))
            try:
                async with run:
                    async for batch in run:
                        if batch.values:
                            # An error that the dispatcher has decided on: no agent stored it.
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
                # A write that is on its way must have its answer before the last one is made.
                carried.over.set()
                await progress
            finally:
                progress.cancel()
                await asyncio.gather(progress, return_exceptions=True)
            if not carried.stopped:
                if carried.stored(run) > carried.record.reserved:
                    await self._more(carried, carried.stored(run))
                await self._finish(carried, run)
        finally:
            await source.aclose()

    async def _open(
        self, carried: Carried, source: StoredInput, seen: list[tuple[int, int]]
    ) -> OpenMap | None:
        record = carried.record
        while not carried.stopped:
            timeout = None
            if record.timeout is not None:
                timeout = record.timeout - carried.elapsed
                if timeout <= 0:
                    raise MapTimeout(late(record))
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
                await self._show_waiting(carried, str(error))
                await self._wait_for_workers(carried, timeout)
            else:
                await self._show_waiting(carried, None)
                return run
        return None

    async def _lack_of_workers_now(self, function: str) -> str | None:
        """As ``_lack_of_workers``, where this process may just have joined the pool."""
        agents = self._dispatcher.agents
        await agents.wait_for(lambda: agents.offer(function, None) is not None, ARRIVAL_SECONDS)
        return self._lack_of_workers(function)

    def _lack_of_workers(self, function: str) -> str | None:
        """Why nothing of a function's job can run now, or None."""
        agents = self._dispatcher.agents
        if agents.offer(function, None) is not None:
            return None
        failed = agents.failure(function)
        return str(failed) if failed is not None else str(agents.no_workers(function))

    async def _show_waiting(self, carried: Carried, lack: str | None, what: str = WORKERS) -> None:
        """Write down what a job waits for, and why, or that it goes on."""
        record, now = carried.record, time.time()
        if lack is None and not record.waiting_for and record.started is not None:
            return
        shown = as_running(record, now)
        if lack is not None:
            shown = as_waiting(record, what, lack, now)
            if (record.waiting_for, record.reason) == (shown.waiting_for, shown.reason):
                return
        try:
            await self._write(carried, shown, carried.seq)
        except BrokerUnreachable as error:
            logger.debug("job %s: not written that it waits or goes on: %s", record.id, error)

    async def _wait_for_workers(self, carried: Carried, timeout: float | None) -> None:
        """Lets others run meanwhile."""
        carried.is_waiting = True
        self.fill()
        try:
            pause = WORKERS_SECONDS
            while True:
                await asyncio.sleep(pause if timeout is None else min(pause, timeout))
                if self._has_room or (timeout is not None and timeout <= pause):
                    return
        finally:
            carried.is_waiting = False

    async def _progress(self, carried: Carried) -> None:
        """Every second: writes down how far it is; ends a job that outgrows its reservation."""
        while not carried.stopped:
            try:
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await carried.over.wait()
                return
            except TimeoutError:
                run = carried.run
            if run is None:
                return
            try:
                what, lack = WORKERS, self._lack_of_workers(carried.record.function)
                if lack is None:
                    what, lack = ROOM, await self._lack_of_room(carried)
                await self._show_waiting(carried, lack, what)
            except Conflict:
                carried.stop()
                return
            except BrokerUnreachable as error:
                logger.debug(
                    "job %s: not known whether there is room: %s", carried.record.id, error
                )
            done, record = run.done, carried.record
            is_timed = record.timeout is not None
            if done == record.done and not (
                is_timed and carried.elapsed - record.elapsed > ELAPSED_SECONDS
            ):
                continue
            try:
                stored = carried.stored(run)
                reserved = record.reserved
                if stored > reserved:
                    reserved = await self._more(carried, stored)
                counted = replace(
                    record,
                    done=done,
                    failed=carried.failed_before + run.ledger.failed,
                    stored=stored,
                    reserved=reserved,
                    elapsed=carried.elapsed,
                    updated=time.time(),
                )
                await self._write(carried, counted, carried.seq)
            except Conflict:
                carried.stop()
            except BrokerUnreachable as error:
                logger.debug("job %s: progress not written: %s", record.id, error)
            except JetmapError as error:
                await self._end(carried, "failed", str(error))
                carried.stop()

    async def _until_room(self, ask: Callable[[], Awaitable[int]]) -> int:
        """Store something as soon as the broker has room: a full store ends no job."""
        while True:
            try:
                return await ask()
            except NoRoom as error:
                logger.info("a job waits for room: %s", error)
            await asyncio.sleep(ROOM_SECONDS)

    async def _lack_of_room(self, carried: Carried) -> str | None:
        """Why outcomes cannot be stored, or None; asked when nothing has come for a while."""
        run, now = carried.run, time.monotonic()
        if run is None or run.done != carried.looked_done:
            carried.looked_done, carried.looked_at = (0 if run is None else run.done), now
            return None
        if now - carried.looked_at < ROOM_SECONDS:
            return carried.lack_of_room
        carried.looked_at = now
        has_room = await self._store.spare.has_room()
        carried.lack_of_room = None if has_room else FULL
        return carried.lack_of_room

    async def _more(self, carried: Carried, stored: int) -> int:
        async def write(record: Record) -> int:
            await self._write(carried, record, carried.seq)
            return carried.seq

        return await self._room(carried.record, stored, write)

    async def _finish(self, carried: Carried, run: OpenMap) -> None:
        """All outcomes are in the store. Counts them again where two may tell of one item."""
        record = carried.record
        ledger = run.ledger
        done, failed = run.done, carried.failed_before + ledger.failed
        if carried.took_over or ledger.repeats:
            outcomes = Outcomes(self._store, record.id, record.format)
            await outcomes.complete()
            done, failed = outcomes.fold.done, outcomes.fold.failed
        state: State = "failed" if failed else "succeeded"
        reason = f"{failed} of {done} items failed" if failed else None
        await self._end(carried, state, reason, done, failed)

    async def _end(
        self,
        carried: Carried,
        state: State,
        reason: str | None,
        done: int | None = None,
        failed: int | None = None,
    ) -> None:
        record = carried.record
        run = carried.run
        if run is not None and done is None:
            done, failed = run.done, carried.failed_before + run.ledger.failed
        now = time.time()
        if record.started is not None:
            record = as_running(record, now)
        stored = carried.base if run is None else carried.stored(run)
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
        await self._write(carried, over, carried.seq)
        log = logger.info if state == "succeeded" else logger.warning
        log(
            "job %s of %s has %s%s",
            record.id,
            record.function,
            state,
            f": {reason}" if reason else "",
        )
        await self._store.remove_input(record.id)

    async def _write(self, carried: Carried, record: Record, after: int) -> None:
        """Stores the record, whatever became of the word on our own earlier writes. Raises
        Conflict if somebody else has decided on the job meanwhile."""
        ttl = record.ttl if record.is_over else None
        carried.writing = record
        while True:
            try:
                carried.seq = await self._until_room(
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
        carried.record = record
        self._catalogue.heard(record, carried.seq)
