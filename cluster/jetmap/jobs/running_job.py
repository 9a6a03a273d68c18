"""Run one job around a map, and keep its record while this dispatcher owns it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from jetmap.background import Background
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.outcomes import Batch
from jetmap.dispatch.tolerance import FailureCount, Tolerance
from jetmap.errors import (
    BrokerUnreachable,
    HostsFull,
    JetmapError,
    MapTimeout,
    NoWorkers,
    StoreFull,
    TooManyFailed,
    UnknownFunction,
    WorkerStartFailed,
)
from jetmap.wire import subjects
from jetmap.wire.constants import unpack_kwargs
from jetmap.wire.messages import FunctionRef, Report, encode
from jetmap.wire.versions import pickles

from . import transitions
from .catalogue import Catalogue
from .held_constants import HeldConstants
from .outcome_index import OutcomeIndex
from .outcomes import StoredOutcomes
from .owned_record import OvertakenError, OwnedRecord
from .record import JobState, Record
from .room import RoomCheck, until_room
from .store import Conflict, Store
from .stored_input import StoredInput
from .transitions import PAUSE, PAUSED, ROOM, WORKERS

logger = logging.getLogger(__name__)

# Seconds between records of a job's progress.
PROGRESS_SECONDS = 1.0
# Seconds of a job's timeout that its next owner may count again.
ELAPSED_SECONDS = 5.0
# Times that items are run again whose stored outcomes somebody has removed while the job ran.
MOST_REPAIRS = 3
# Seconds for existing workers to announce themselves to a process that has just joined.
ARRIVAL_SECONDS = 0.25

# Called before a job takes more of the store than its reservation, with its record, the bytes
# and a function that stores its record. Returns a larger reservation, or raises StoreFull.
GrantRoom = Callable[[Record, int, Callable[[Record], Awaitable[int]]], Awaitable[int]]


class RunningJob:
    """A job that this dispatcher runs: ``own``, ``open`` until there are workers, then ``run``.

    Args:
        weight: The job's share of the cores, where a map has 1.

    Attributes:
        is_waiting: Whether the job waits for workers, and others may run meanwhile.
        stopped: Whether somebody else decides on the job now.
    """

    def __init__(
        self,
        record: Record,
        dispatcher: Dispatcher,
        store: Store,
        catalogue: Catalogue,
        *,
        weight: float,
        grant_room: GrantRoom,
    ) -> None:
        self.is_waiting = self.stopped = False
        self.task: asyncio.Task[None] | None = None
        self._dispatcher = dispatcher
        self._store = store
        self._owned = OwnedRecord(record, dispatcher.id, store, catalogue, on_steered=self._steer)
        self._weight = weight
        self._grant_room = grant_room
        self._background = Background(f"job {record.id}")
        self._base = 0  # Bytes of the store that it took when this run began.
        self._failed_before = 0  # Failed items of earlier owners.
        self._failures = FailureCount(None, None)  # Those, and the map's.
        self._took_over = False
        self._messages = 0  # Messages of this run in the store, at least.
        self._repairs = 0
        self._began = time.monotonic()
        self._elapsed_before = record.elapsed
        self._index = OutcomeIndex()  # The outcomes stored by earlier owners.
        self._source: StoredInput | None = None
        self._map: OpenMap | None = None
        self._all_stored = asyncio.Event()
        self._room = RoomCheck(store.filler)
        self._constants = HeldConstants(store, record.id, dispatcher.constants)

    @property
    def record(self) -> Record:
        return self._owned.current

    @property
    def has_map(self) -> bool:
        return self._map is not None

    @property
    def is_held(self) -> bool:
        """Return whether others may run meanwhile: it waits for workers, or is paused."""
        return self.is_waiting or self._held() is not None

    def _held(self) -> tuple[str, str] | None:
        """Return which pause the job waits for, and why; None: none."""
        if self.record.paused:
            return PAUSE, PAUSED
        gate = self._dispatcher.steering.hold(self.record.function)
        return None if gate is None else (gate.waits, gate.reason)

    @property
    def elapsed(self) -> float:
        """Seconds for which the job has run, on all its owners."""
        return self._elapsed_before + time.monotonic() - self._began

    @property
    def seconds_left(self) -> float | None:
        """Seconds until its timeout, or None if it has none."""
        return None if self.record.timeout is None else self.record.timeout - self.elapsed

    def on_record(self, record: Record) -> None:
        """Stop if somebody else decides on the job now; else do what its record says."""
        if self._owned.on_record(record):
            self.stop()

    def _steer(self) -> None:
        """Let the open map do what the record says."""
        run, record = self._map, self.record
        if run is None:
            return
        self._failures.tolerance = Tolerance.of(record.max_failed)
        run.relabel(record.labels)
        if (run.is_paused, run.max_parallel) == (record.paused, record.max_parallel):
            return
        run.restrict(record.max_parallel)
        run.pause() if record.paused else run.resume()
        self._dispatcher.steered(run)

    def stop(self) -> None:
        """Stop running the job and write nothing more: somebody else decides on it now."""
        if not self.stopped:
            self.stopped = True
            if self.task is not None:
                self.task.cancel()

    # Running

    async def own(self) -> bool:
        """Make this dispatcher the owner, under a new epoch, unless another was faster."""
        before, seq = await self._store.read(self.record.id)
        me = self._dispatcher.id
        if before is None or not transitions.may_run(before, self.record, me):
            return False
        now = time.time()
        self._elapsed_before = max(before.elapsed, self.elapsed)
        self._began = time.monotonic()
        self._took_over = before.epoch > 0
        self._base = before.stored
        self._owned.current = transitions.owned(before, me)
        function, agents = before.function, self._dispatcher.agents
        # This process may be new.
        await agents.wait_for(lambda: agents.lack(function) is None, ARRIVAL_SECONDS)
        record, lack = self.record, agents.lack(function)
        if lack is not None:
            record = transitions.as_waiting(record, WORKERS, lack, now)
        elif not before.waiting_for:
            record = transitions.as_running(record, now)
        await self._owned.write(record, seq)
        if self._took_over:
            if before.state == "queued":
                logger.info("job %s of %s begins run %d", before.id, before.function, before.run)
            elif before.owner != me:
                was = f"was running on {before.owner}" if before.owner else "was released"
                # A caller that leaves releases its jobs; only one that died is worth a warning.
                level = logging.WARNING if before.owner else logging.INFO
                text = "job %s of %s is taken over here; it %s"
                logger.log(level, text, before.id, before.function, was)
            await self._dispatcher.recall(transitions.last_map(before))
            await self._read_outcomes()
        index = self._index
        self._source = StoredInput(self._store, self.record, index.ranges(), index.tries)
        return True

    async def open(self) -> bool:
        """Open the job's map; return False if no worker can run it yet."""
        record, source, left = self.record, self._source, self.seconds_left
        assert source is not None
        if left is not None and left <= 0:
            raise MapTimeout(transitions.timeout_message(record))
        if (held := self._held()) is not None:
            what, why = held
            await self._show_waiting(why, what)
            return False
        found = unpack_kwargs(record.kwargs)
        try:
            await self._constants.hold(found.constants.values())
        except HostsFull as error:
            await self._show_waiting(str(error), ROOM)
            return False
        trusting = found.pickles or (pickles() if record.format == "pickle" else "")
        spec = MapSpec(
            function=record.function,
            format=record.format,
            kwargs=record.kwargs,
            timeout=left,
            weight=self._weight,
            causes=record.causes,
            values=record.values,
            submitted=record.submitted,
            labels=record.labels,
            max_parallel=record.max_parallel,
            ref=_by_pickles(trusting) if trusting else None,
            constants=tuple(self._constants.digests),
        )
        id = subjects.job_map(record.id, record.epoch, record.run)
        seen = StoredOutcomes(self._store, record.id, record.format, self._index)
        try:
            run = await self._dispatcher.open(spec, source, id=id, seen=seen)
        except (NoWorkers, UnknownFunction, WorkerStartFailed) as error:
            logger.info("job %s waits: %s", record.id, error)
            await self._show_waiting(str(error))
            return False
        self._map = run
        self._failures = FailureCount(None, record.total, self._failed_before)
        self._steer()  # It may have been steered meanwhile.
        await self._show_waiting(None)
        return True

    async def run(self) -> bool:
        """Run the open map to its end, and end the job with it.

        Returns:
            Whether the job is over. Else outcomes were removed from the store while it ran, and
            ``own`` and ``open`` begin the map of the items that lack one.
        """
        run = self._map
        assert run is not None
        self._messages = 0
        progress = self._background.spawn(self._record_progress(run), "record progress")
        async with run:
            # Its last owner may have died before it could end it.
            self._failures.add((), run.done)
            async for batch in run:
                self._messages += 1
                if batch.values:
                    await self._store_batch(run, batch)
                self._failures.add(batch.errors, run.done)
        # A write in flight must be answered before the last one.
        self._all_stored.set()
        await progress
        if not self.stopped:
            if self._stored(run) > self.record.reserved:
                await self._reserve(self._stored(run))
            return await self._finish(run)
        return True

    async def close(self) -> None:
        """Stop recording progress, withdraw what is out, and stop reading the input."""
        await self._background.close()
        if self._map is not None:
            await self._map.aclose()
        if self._source is not None:
            await self._source.aclose()
        self._constants.release()

    async def fail(self, error: JetmapError) -> None:
        """End the job as failed. A full store needs the room that its input takes."""
        keeps_input = not isinstance(error, StoreFull)
        exceeded = self._failures.exceeded if isinstance(error, TooManyFailed) else None

        def decide() -> _Verdict:
            limit = self.record.max_failed if exceeded is None else exceeded.text
            return _Verdict("failed", str(error), limit)

        await self._end(decide, keeps_input=keeps_input)

    async def _read_outcomes(self) -> None:
        """Read which items have their outcome from earlier owners."""
        outcomes = self._outcomes()
        if not await outcomes.complete():
            logger.info(
                "job %s: outcomes that a replica still lacks are computed again", self.record.id
            )
        self._index = outcomes.index
        self._failed_before = self._index.failed
        # More was stored than its last owner had recorded.
        self._base = max(self._base, self.record.input_bytes + self._index.stored)

    async def _store_batch(self, run: OpenMap, batch: Batch) -> None:
        """Store errors that this dispatcher has decided; agents have stored all else."""
        head = (run.id, 0, 0, batch.start, batch.count, batch.values, batch.errors, 0.0)
        message = encode(Report(*head))
        subject = subjects.job_outcomes(self._store.pool, self.record.id)
        await until_room(lambda: self._store.append(subject, message))

    # Waiting

    async def _show_waiting(self, lack: str | None, what: str = WORKERS) -> None:
        """Record what the job waits for, and why, or that it runs again."""
        shown = transitions.shown_waiting(self.record, what, lack, time.time())
        if shown is None:
            return
        try:
            await self._owned.write(shown)
        except BrokerUnreachable as error:
            logger.debug("job %s: cannot record whether it waits: %s", self.record.id, error)

    # Recording

    def _stored(self, run: OpenMap) -> int:
        """Return the bytes of the store that the job takes."""
        return self._base + run.stored_bytes

    def _failed(self, run: OpenMap) -> int:
        return self._failed_before + run.ledger.failed

    async def _record_progress(self, run: OpenMap) -> None:
        """Record progress every second, and end a job that outgrows its reservation."""
        while not self.stopped:
            try:
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await self._all_stored.wait()
                return
            except TimeoutError:
                pass
            try:
                await self._record_waiting(run)
                await self._record_counts(run)
            except Conflict:
                self.stop()
            except JetmapError as error:
                with contextlib.suppress(Conflict):
                    await self.fail(error)
                self.stop()

    async def _record_waiting(self, run: OpenMap) -> None:
        try:
            what, lack = WORKERS, self._dispatcher.agents.lack(self.record.function)
            if (held := self._held()) is not None:
                what, lack = held
            elif lack is None:
                what, lack = ROOM, await self._room.lack(run.done, time.monotonic())
            await self._show_waiting(lack, what)
        except BrokerUnreachable as error:
            logger.debug(
                "job %s: cannot tell whether the broker has room: %s", self.record.id, error
            )

    async def _record_counts(self, run: OpenMap) -> None:
        record, done, elapsed = self.record, run.done, self.elapsed
        is_late = record.timeout is not None and elapsed - record.elapsed > ELAPSED_SECONDS
        if done == record.done and not is_late:
            return
        try:
            stored = self._stored(run)
            reserved = record.reserved
            if stored > reserved:
                reserved = await self._reserve(stored)
            counted = transitions.progressed(
                record,
                done=done,
                failed=self._failed(run),
                stored=stored,
                reserved=reserved,
                elapsed=elapsed,
                now=time.time(),
            )
            await self._owned.write(counted)
        except BrokerUnreachable as error:
            logger.debug("job %s: cannot record progress: %s", record.id, error)

    async def _reserve(self, stored: int) -> int:
        """Enlarge the reservation, so that ``stored`` bytes fit."""
        return await self._grant_room(self.record, stored, self._owned.write)

    async def _finish(self, run: OpenMap) -> bool:
        """End a job whose outcomes are all stored; return False if some have been removed.

        Counts again where an item may have two outcomes, or none.
        """
        done, failed = run.done, self._failed(run)
        if self._took_over or run.ledger.repeats or await self._lacks_messages():
            outcomes = self._outcomes()
            if not await outcomes.complete():
                raise BrokerUnreachable("a replica lacks the last outcomes")
            done, failed = outcomes.index.done, outcomes.index.failed
        if done < (self.record.total or 0):
            lost = f"{done} of {self.record.total} outcomes are still in the store"
            self._repairs += 1
            if self._repairs <= MOST_REPAIRS:
                logger.warning("job %s: only %s; the others run again", self.record.id, lost)
                await self._part()
                return False
            reason = f"only {lost}: something removes them"
            await self._end(
                lambda: _Verdict("failed", reason, self.record.max_failed), (done, failed)
            )
        else:
            await self._end(lambda: self._decide(done, failed), (done, failed))
        return True

    def _decide(self, done: int, failed: int) -> _Verdict:
        """Decide how a job with all its outcomes has ended, by what people want of it now."""
        limit = self.record.max_failed
        reason = None
        if limit is None:
            reason = f"{failed} of {done} items failed" if failed else None
        else:
            self._failures.tolerance, self._failures.failed = Tolerance(limit), failed
            try:
                self._failures.check(done)
            except TooManyFailed as error:
                reason = str(error)
        return _Verdict("succeeded" if reason is None else "failed", reason, limit)

    async def _lacks_messages(self) -> bool:
        """Return whether fewer messages are stored than agents have reported."""
        subject = subjects.job_outcomes(self._store.pool, self.record.id)
        there, _ = await self._store.size("OUTCOMES", subject)
        if not there and await self._store.is_gone("OUTCOMES"):
            await self._store.restore()
        return there < self._messages

    async def _part(self) -> None:
        """Let go of a map that has ended, so that another can be opened."""
        source, self._source, self._map = self._source, None, None
        if source is not None:
            await source.aclose()
        self._all_stored.clear()

    def _outcomes(self) -> StoredOutcomes:
        """Return a reader of the outcomes of this run, which has read nothing yet."""
        index = OutcomeIndex(self.record.run, self.record.ends)
        return StoredOutcomes(self._store, self.record.id, self.record.format, index)

    async def _end(
        self,
        decide: Callable[[], _Verdict],
        counts: tuple[int, int] | None = None,
        *,
        keeps_input: bool = True,
    ) -> None:
        """Record the end.

        decide: says how the job has ended; again if people change what that depends on. counts:
        items done and failed, if they were counted again. keeps_input: whether items that failed,
        or have no outcome, may be run again.
        """
        while True:
            state, reason, limit = decide()
            record, run = msgspec.structs.replace(self.record, max_failed=limit), self._map
            if counts is None:
                known = (record.done, record.failed)
                counts = known if run is None else (run.done, self._failed(run))
            over = transitions.ended(
                record,
                state,
                reason,
                done=counts[0],
                failed=counts[1],
                stored=self._base if run is None else self._stored(run),
                now=time.time(),
                keeps_input=keeps_input and (counts[1] > 0 or counts[0] != record.total),
            )
            with contextlib.suppress(OvertakenError):  # Then it is decided again.
                await self._owned.write(over)
                break
        log = logger.info if state == "succeeded" else logger.warning
        why = f": {reason}" if reason else ""
        log("job %s of %s has %s%s", record.id, record.function, state, why)
        if not over.keeps_input:
            await self._store.remove_input(record)


class _Verdict(NamedTuple):
    """The way in which a job has ended, and the ``max_failed`` by which that was decided."""

    state: JobState
    reason: str | None
    max_failed: str | None


def _by_pickles(versions: str) -> FunctionRef:
    """Make the reference that only agents which read pickles of these versions may get."""
    return FunctionRef("", "", pickles=versions, items=True)
