"""One core: its worker process, and the consequences of its death for its chunks.

``worker_state.py`` has the states of the worker, with their diagram.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Protocol

import msgspec

from jetmap.background import Background
from jetmap.supervision import Backoff, Supervisor
from jetmap.wire import frames
from jetmap.wire.messages import Crash, Hurry, Rest, Together
from jetmap.wire.presence import CoreDetail, CoreState
from jetmap.wire.worker_start import Broken, Importing, Loaded, Ready, Setup, StartFailed, Unshared

from .batches import ChunkBatch
from .early_values import EarlyValues
from .holdings import HeldChunk
from .neighbours import NeighbourDispatchers
from .options import AgentOptions
from .recycling import RESTART_PAUSES, Recycling
from .warm_ups import WarmUps
from .watchdogs import ImportWatch
from .worker_process import StartError, WorkerProcess, failure_of
from .worker_queue import KillReason, Lost, QueueEntry, WorkerQueue, crash_of
from .worker_state import Death, State, WorkerEvent, after

logger = logging.getLogger(__name__)

SHORT_SECONDS = 0.005  # Seconds of a chunk after which its report goes out before the next pull.
STOPPED = KillReason("stopped")

# Starts a slot's worker process; tests pass their own function.
StartWorker = Callable[[AgentOptions, int | None, Setup], Awaitable[WorkerProcess]]

_ready = msgspec.msgpack.Decoder(Ready).decode
_failed = msgspec.msgpack.Decoder(StartFailed).decode
_warmed = msgspec.msgpack.Decoder(tuple[str, float]).decode
_importing = msgspec.msgpack.Decoder(Importing).decode
_unshared = msgspec.msgpack.Decoder(Unshared).decode
_loaded = msgspec.msgpack.Decoder(Loaded).decode
_broken = msgspec.msgpack.Decoder(Broken).decode


class SlotOwner(Protocol):
    """The agent, as its slots see it."""

    async def on_worker_ready(self, slot: Slot, ready: Ready) -> None: ...
    async def announce(self) -> None: ...
    async def on_worker_failed(self, slot: Slot, failure: StartFailed) -> None: ...
    async def on_import_failed(self, broken: Broken, *, fatal: bool) -> None: ...
    async def on_load_failed(self, broken: Broken) -> None: ...
    async def on_loaded(self, loaded: Loaded) -> None: ...
    async def on_stale(self) -> None: ...
    def on_recycled(self) -> None: ...


class ChunkOwner(Protocol):
    """The agent's chunks, as its slots see them; ``chunks.py`` describes the methods."""

    async def on_core_freed(self, slot: Slot) -> None: ...
    def on_core_lost(self, slot: Slot) -> None: ...
    async def on_report(
        self, held: HeldChunk, report: bytes, last: bool, values: bytes
    ) -> None: ...
    async def on_delivered_past(self, held: HeldChunk) -> None: ...
    async def on_rest(self, held: HeldChunk, rest: Rest) -> None: ...
    async def on_chunk_ended(self, held: HeldChunk, crash: Crash | None) -> None: ...
    async def on_batch_lost(self, lost: Lost) -> None: ...
    async def flush(self) -> None: ...
    def give_constants(self, worker: WorkerProcess, held: HeldChunk) -> None: ...


class Slot:
    """Keep one worker alive on one core; give it one chunk at a time, or several small ones."""

    def __init__(
        self,
        number: int,
        cpu: int | None,
        options: AgentOptions,
        setup: Setup,
        owner: SlotOwner,
        chunks: ChunkOwner,
        start: StartWorker = WorkerProcess.start,
        warm_ups: WarmUps | None = None,
        take_spare: Callable[[int | None], WorkerProcess | None] = lambda cpu: None,
        neighbours: NeighbourDispatchers | None = None,
    ) -> None:
        self.number = number
        self.cpu = cpu
        self._options = options
        self._owner = owner
        self._chunks = chunks
        self._warm_ups = warm_ups or WarmUps(options.workers.start_timeout)
        self._take_spare = take_spare
        self._neighbours = neighbours or NeighbourDispatchers("", 0)
        self._start = partial(start, options, cpu, setup)
        self._recycling = Recycling.wanted(options, self._start, self._on_start_failed)
        self._state = State.STARTING
        self._background = Background(f"core {number}")
        self._supervisor = Supervisor(self._serve, Backoff(*RESTART_PAUSES))
        self._start_failed = False  # The latest start, for ``jetmap status``.
        self._hurries: dict[str, Hurry] = {}  # Of chunks that this or the next worker may get.
        # About the worker:
        self._worker: WorkerProcess | None = None
        self._queue = WorkerQueue(self, self._warm_ups, hurries=self._hurries)
        self._was_ready = False
        self._is_stale = False  # Its source has changed: it goes after its chunk.
        self._kill_reason: KillReason | None = None
        self._failure: StartFailed | None = None
        self._task = Importing()  # The TASKS argument that it imports, before it is ready.
        self._import = ImportWatch(options.workers.start_timeout, partial(self.kill, STOPPED))
        self._ended = 0  # Chunks that the worker has computed.
        self._early = EarlyValues()
        self._handlers: dict[bytes, Callable[[bytes], Awaitable[None]]] = {
            frames.EARLY: self._on_early,
            frames.READY: self._on_ready,
            frames.LOADED: self._on_loaded,
            frames.FAILED: self._on_failed,
            frames.TASK: self._on_task,
            frames.IMPORTING: self._on_importing,
            frames.BROKEN: self._on_broken,
            frames.STALE: self._on_stale,
            frames.WARMED: self._on_warmed,
            frames.VALUES: self._on_values,
            frames.REGION: self._on_region,
            frames.UNSHARED: self._on_unshared,
            frames.PART: self._on_part,
            frames.LAST: self._on_result,
            frames.ENDED: self._on_ended,
            frames.SKIPPED: self._on_skipped,
        }

    @property
    def is_ready(self) -> bool:
        """Return whether the worker serves: it computes, or waits for a chunk."""
        return self._state is State.IDLE or self._state is State.BUSY

    @property
    def recycles(self) -> bool:
        """Return whether its workers are replaced when they have served long enough."""
        return self._recycling is not None

    @property
    def is_idle(self) -> bool:
        return self._state is State.IDLE

    @property
    def loader(self) -> str:
        """The ``per_worker`` loader that the worker is in, or empty."""
        return self._import.loader

    @property
    def held(self) -> HeldChunk | None:
        """The chunk that the worker is in."""
        return self._queue.held

    @property
    def item(self) -> int | None:
        """The item in progress."""
        return self._queue.item

    @property
    def state(self) -> tuple[CoreState, str | None]:
        """The state of this core, and the function that it computes."""
        if self.held is not None:
            return "busy", self.held.head.function
        if self.is_ready:
            return "idle", None
        return "failed" if self._start_failed else "starting", None

    @property
    def mark(self) -> Hashable:
        """A value that changes with everything that is announced of this core."""
        held, worker = self.held, self._worker
        return (
            self._state,
            self._start_failed,
            self.loader,
            held and (held.key, held.head.function),
            worker and worker.pid,
            self._queue.since,
            self._ended,
        )

    def detail(self) -> CoreDetail:
        """Describe this core for ``jetmap status``."""
        return CoreDetail(
            pid=self._worker.pid if self._worker else None,
            cpu=self.cpu,
            map=self.held.head.map if self.held else None,
            since=self._queue.since,
            chunks=self._ended,
        )

    def rest(self) -> None:
        """Give shared memory back that an idle worker does not use."""
        if self.is_idle and self._worker is not None:
            self._neighbours.rest(self._worker)

    def memory(self) -> int:
        """Return the resident bytes of the worker; 0 while there is none."""
        return self._worker.memory() if self._worker else 0

    # What the agent asks

    async def run(self) -> None:
        """Start a worker, serve it, and replace it when it has died, until ``close``."""
        await self._supervisor.run()
        if self._recycling is not None:
            await self._recycling.drop()
        await self._background.finish()

    def assign(self, chunks: list[HeldChunk], batch: ChunkBatch[HeldChunk] | None = None) -> None:
        """Give the idle worker chunks, to be computed one after the other.

        batch: of these chunks, if they are to be computed together.
        """
        self._enter(WorkerEvent.ASSIGNED)
        assert self._worker is not None
        for held in chunks:
            if held.items:
                self._worker.send_items(held.items)
                held.items = []
            if held.constants:
                self._chunks.give_constants(self._worker, held)
        if batch is not None:
            skip = chunks[0].end - chunks[0].head.start
            self._worker.send_batch(Together(len(chunks), skip, batch.runs))
        self._queue.push(chunks, self._worker.send_chunk, batch)

    def stop(self, held: HeldChunk, grace: float) -> bool:
        """End a chunk as ``WorkerQueue.stop`` does; return whether this worker has it."""
        if (entry := self._queue.find(held)) is not None:
            self._queue.stop(entry, grace)
        return entry is not None

    def hurry(self, request: Hurry) -> None:
        """End long chunks early, as ``WorkerQueue.hurry`` does."""
        self._queue.hurry(request)

    def drain(self, grace: float) -> None:
        """End each chunk as ``stop`` does."""
        for entry in self._queue:
            if not entry.revoked:
                self._queue.stop(entry, grace)

    async def replace(self) -> None:
        """Replace the worker by a fresh one: now if it is idle, else after its chunk."""
        self._is_stale = True
        self._supervisor.hurry()
        if self._recycling is not None:
            await self._recycling.drop()
        if self.is_idle:
            self._dismiss()

    async def recycle(self) -> None:
        """Start a successor for a worker that has served long enough; replace it by a ready one."""
        if self._recycling is not None:
            await self._recycling.check(self._worker if self.is_ready else None, self._ended)
            if self._recycling.is_warm and self.is_idle:
                self._dismiss()

    def close(self) -> None:
        """End the worker for good; ``run`` then returns."""
        if self.is_idle:
            self._dismiss()
        else:
            self.kill(STOPPED)
        self._enter(WorkerEvent.CLOSED)
        self._supervisor.stop()

    # The life of a worker

    async def _serve(self) -> str | None:
        """Serve one worker until it is dead; return whether the next start has to wait."""
        # A task of its own: each of its frames would otherwise resume the supervisor, too.
        serving = self._background.spawn(self._serve_one(), "serving")
        await asyncio.wait([serving])
        return None if self._was_ready and serving.exception() is None else "it failed"

    async def _serve_one(self) -> None:
        self._was_ready = self._is_stale = False
        self._queue = WorkerQueue(self, self._warm_ups, hurries=self._hurries)
        self._ended, self._early = 0, EarlyValues()
        self._kill_reason = self._failure = None
        self._task = Importing()
        successor = self._recycling.begin() if self._recycling is not None else None
        if successor is not None:
            logger.info("core %d: a worn worker is replaced by a fresh one", self.number)
            self._owner.on_recycled()
        try:
            ready = successor or self._take_spare(self.cpu)
            worker = self._worker = ready or await self._start()
        except StartError as error:
            await self._on_start_failed(error.failure)
            return
        self._queue = queue = WorkerQueue(self, self._warm_ups, worker.progress, self._hurries)
        worker.mark_output(lambda: queue.mark() or worker.describe())
        if self._state is State.CLOSED:
            self.kill(STOPPED)
        self._neighbours.add(worker)
        try:
            while (received := await worker.receive()) is not None:
                kind, payload = received
                await self._handlers[kind](payload)
                if not worker.has_answered:
                    await self._chunks.flush()
            self._enter(WorkerEvent.CONDEMNED)
            death = await worker.end_behind_pipe()
        except Exception as error:
            # For example, a process that the function forked wrote into the pipe. The item in
            # progress is to blame: it would do so again, in worker after worker.
            text = "worker (pid %d) sent what is no message, %s: %s; it is replaced"
            logger.error(text, worker.pid, type(error).__name__, error)
            self._enter(WorkerEvent.CONDEMNED)
            worker.kill()
            death = await worker.death()
        finally:
            worker.kill()
        await self._on_death(worker, death)
        await self._chunks.flush()

    def _enter(self, event: WorkerEvent) -> None:
        """Change the state; the agent counts the idle cores."""
        was_idle = self.is_idle
        self._state = after(self._state, event)
        if was_idle and event is not WorkerEvent.ASSIGNED:
            self._chunks.on_core_lost(self)

    def _condemn(self, reason: KillReason) -> None:
        """Give the worker no more chunks: it is about to die. The first reason counts."""
        self._kill_reason = self._kill_reason or reason
        self._enter(WorkerEvent.CONDEMNED)

    async def _on_death(self, worker: WorkerProcess, death: Death) -> None:
        """Report the chunks that were lost with a worker, and the reason for its death."""
        self._enter(WorkerEvent.DIED)
        killed, is_importing = self._kill_reason, self._import.is_importing
        broken = self._import.on_death(death, was_killed=killed is not None)
        mark = self._queue.mark(late=False) or worker.describe()
        worker.mark_output(lambda: mark)  # The chunks that would tell are taken away.
        lost = self._queue.lose(None if is_importing else partial(crash_of, death, killed))
        worker.close(mark)
        self._early.take(None)  # Their report never came.
        self._neighbours.remove(worker)
        self._worker = None
        self._background.spawn(worker.gone(), "sweep")
        for held, crash in lost.chunks:
            if crash is not None:
                crash.host, crash.start_seconds = self._options.host, worker.start_seconds
            await self._chunks.on_chunk_ended(held, crash)
        if lost.again:
            await self._chunks.on_batch_lost(lost)
        if broken is not None and broken.loader and not self._was_ready:
            self._start_failed = True
            await self._owner.on_load_failed(broken)
        elif broken is not None:
            await self._owner.on_import_failed(broken, fatal=True)
        elif lost.chunks or lost.again or self._state is State.CLOSED:
            return
        elif not self._was_ready:
            await self._on_start_failed(self._failure or failure_of(death, self._task))
        elif self._kill_reason is None:
            logger.warning("an idle worker (pid %d) %s; it is replaced", worker.pid, death)

    async def _on_start_failed(self, failure: StartFailed) -> None:
        self._start_failed = True
        await self._owner.on_worker_failed(self, failure)

    # Frames of the worker

    async def _on_early(self, payload: bytes) -> None:
        await self._owner.on_worker_ready(self, _ready(payload))
        await self._owner.announce()

    async def _on_ready(self, payload: bytes) -> None:
        ready = _ready(payload)
        await self._owner.on_worker_ready(self, ready)
        if not self._was_ready:
            self._was_ready, self._start_failed = True, False
            self._queue.since = time.monotonic()
            await self._free_core(WorkerEvent.READY)
        await self._owner.announce()

    async def _on_failed(self, payload: bytes) -> None:
        self._failure = _failed(payload)

    async def _on_task(self, payload: bytes) -> None:
        self._task = _importing(payload)

    async def _on_importing(self, payload: bytes) -> None:
        self._import.on_importing(_importing(payload))

    async def _on_broken(self, payload: bytes) -> None:
        await self._owner.on_import_failed(_broken(payload), fatal=False)

    async def _on_loaded(self, payload: bytes) -> None:
        await self._owner.on_loaded(_loaded(payload))

    async def _on_stale(self, payload: bytes) -> None:
        self._dismiss()
        await self._owner.on_stale()

    async def _on_warmed(self, payload: bytes) -> None:
        self._warm_ups.on_warmed(*_warmed(payload))

    async def _on_values(self, payload: bytes) -> None:
        self._early.on_values(payload)

    async def _on_region(self, payload: bytes) -> None:
        if self._worker is not None:
            self._early.on_region(self._neighbours.lend(self._worker, payload))

    async def _on_unshared(self, payload: bytes) -> None:
        self._neighbours.on_unshared(_unshared(payload))

    async def _on_part(self, payload: bytes) -> None:
        values = self._early.take(self.held)
        if self.held is not None:
            await self._chunks.on_report(self.held, payload, False, values)

    async def _on_result(self, payload: bytes) -> None:
        """Report the end of a chunk, and go on to the next one.

        The caller of a short chunk waits for the result longer than the core for its next chunk.
        Otherwise the next chunk is pulled first, because the core waits for that.
        """
        entry = self._queue.pop()
        if entry is None:
            return
        self._ended += 1
        now = time.monotonic()
        is_short, self._queue.since = now - self._queue.since < SHORT_SECONDS, now
        if is_short and not self._queue:
            await self._report(entry, payload)
            await self._chunks.flush()
            await self._advance()
        else:
            try:
                await self._advance()
            finally:
                await self._report(entry, payload)
        if self._recycling is not None and self._recycling.has_served(self._ended):
            await self.recycle()

    async def _on_ended(self, payload: bytes) -> None:
        """Go on behind a chunk whose last report has gone past this agent."""
        entry = self._queue.pop()
        if entry is None:
            return
        self._ended += 1
        self._queue.since = time.monotonic()
        try:
            await self._advance()
        finally:
            if not entry.revoked:
                await self._chunks.on_delivered_past(entry.held)
        if self._recycling is not None and self._recycling.has_served(self._ended):
            await self.recycle()

    async def _on_skipped(self, payload: bytes) -> None:
        """Hand back a chunk that the worker has passed over, unless that was done before."""
        entry = self._queue.pop()
        if entry is None:
            return
        try:
            await self._advance()
        finally:
            if not entry.revoked:
                await self._chunks.on_chunk_ended(entry.held, None)

    async def _report(self, entry: QueueEntry, report: bytes) -> None:
        values = self._early.take(None if entry.revoked else entry.held)
        if entry.revoked:
            return
        try:
            await self._chunks.on_report(entry.held, report, True, values)
        except Exception:
            # The frame is bad: the worker will be replaced, and the items run elsewhere.
            await self._chunks.on_chunk_ended(entry.held, None)
            raise

    async def _advance(self) -> None:
        """Go on to the worker's next chunk, or free the core."""
        if not self._queue:
            await self._free_core(WorkerEvent.EMPTIED)
        elif self.is_ready:
            self._queue.advance()

    async def _free_core(self, event: WorkerEvent) -> None:
        """Free the core, unless its worker is dead, or is to be replaced now."""
        assert self._worker is not None
        if self._is_stale or (self._recycling is not None and self._recycling.is_warm):
            self._dismiss()
        elif self._worker.is_dead:
            self._enter(WorkerEvent.CONDEMNED)
        self._enter(event)
        if self.is_idle:
            await self._chunks.on_core_freed(self)

    # What the queue of the worker asks

    def kill(self, reason: KillReason) -> None:
        """Kill the worker, if there is one.

        One that is in a loader goes on when the caller of its chunk has left: the next caller of
        the function needs what it loads.
        """
        if self._was_ready and self._import.loader and reason is not STOPPED:
            return
        if self._worker is not None:
            self._condemn(reason)
            self._worker.kill()

    def _dismiss(self) -> None:
        """Let the worker, which is in no chunk, end cleanly."""
        if self._worker is not None:
            self._condemn(STOPPED)
            self._worker.dismiss()

    def hand_back(self, entries: list[QueueEntry]) -> None:
        """Report chunks that were not begun."""
        self._background.spawn(self._hand_back(entries), "hand back")

    async def _hand_back(self, entries: list[QueueEntry]) -> None:
        for entry in entries:
            await self._chunks.on_chunk_ended(entry.held, None)
        await self._chunks.flush()

    def hand_on(self, held: HeldChunk, rest: Rest) -> None:
        """Report items that run elsewhere."""
        self._background.spawn(self._chunks.on_rest(held, rest), "hand on")
