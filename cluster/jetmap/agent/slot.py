"""One core: its worker process, the chunks that it computes, and the consequences of its death.

The states of a slot's worker::

    starting --ready--> idle --assign--> busy
       ^                 ^                 |
       |                 +--last chunk-----+
       |                 |                 |
       |                 v                 v
       +---dead------- dying: it was killed (a timeout, an import that hangs, a chunk that is
                       not ended in time), is stale or worn, or died by itself

``close`` ends the worker for good. A worker that dies while it starts is started again, after
pauses that grow until its source changes. A worker that is worn, having served long enough, goes
only when its successor is ready.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import msgspec

from jetmap.backoff import Backoff
from jetmap.wire import frames
from jetmap.wire.messages import (
    Broken,
    CoreStatus,
    Crash,
    Importing,
    Ready,
    Rest,
    Setup,
    StartFailed,
)

from .blame import KillReason, crash_of
from .holdings import HeldChunk
from .options import AgentOptions
from .recycling import RESTART_PAUSES, Recycling
from .warm_ups import WarmUps
from .watchdogs import Deadline, Jam, Overrun
from .worker_process import Death, StartError, WorkerProcess, failure_of
from .worker_queue import QueueEntry, WorkerQueue

logger = logging.getLogger(__name__)

SHORT_SECONDS = 0.005  # Seconds of a chunk after which its report goes out before the next pull.
SKIP_SECONDS = 1.0  # Seconds for a worker to pass over a chunk, which takes microseconds.

StartWorker = Callable[[AgentOptions, int | None, Setup], Awaitable[WorkerProcess]]
"""Start a slot's worker process; tests pass their own function."""

_ready = msgspec.msgpack.Decoder(Ready).decode
_failed = msgspec.msgpack.Decoder(StartFailed).decode
_warmed = msgspec.msgpack.Decoder(tuple[str, float]).decode
_importing = msgspec.msgpack.Decoder(Importing).decode
_broken = msgspec.msgpack.Decoder(Broken).decode


class Supervisor(Protocol):
    """The agent, as its slots see it.

    ``on_chunk_ended`` means: without a result. Its crash is None if the chunk has not begun, or if
    what it gave is lost and no item is to blame.
    """

    async def on_worker_ready(self, slot: Slot, ready: Ready) -> None: ...
    async def announce(self) -> None: ...
    async def on_worker_failed(self, slot: Slot, failure: StartFailed) -> None: ...
    async def on_import_failed(self, broken: Broken, *, fatal: bool) -> None: ...
    async def on_core_freed(self, slot: Slot) -> None: ...
    def on_core_lost(self, slot: Slot) -> None: ...
    def on_recycled(self) -> None: ...
    async def on_report(self, held: HeldChunk, report: bytes, last: bool) -> None: ...
    async def on_rest(self, held: HeldChunk, rest: Rest) -> None: ...
    async def on_chunk_ended(self, held: HeldChunk, crash: Crash | None) -> None: ...
    async def flush(self) -> None: ...


class Slot:
    """Keep one worker alive on one core; give it one chunk at a time, or several small ones."""

    def __init__(
        self,
        number: int,
        cpu: int | None,
        options: AgentOptions,
        setup: Setup,
        supervisor: Supervisor,
        start: StartWorker = WorkerProcess.start,
        warm_ups: WarmUps | None = None,
    ) -> None:
        self.number = number
        self.cpu = cpu
        self.is_ready = False
        self._options = options
        self._supervisor = supervisor
        self._warm_ups = warm_ups or WarmUps(options.workers.start_timeout)
        self._start = partial(start, options, cpu, setup)
        self._recycling = Recycling(options, self._start, self._on_start_failed)
        self._worker: WorkerProcess | None = None
        self._queue = WorkerQueue()
        self._latest: HeldChunk | None = None  # The chunk that the worker has ended last.
        self._kill_reason: KillReason | None = None
        self._deadline: Deadline | None = None
        self._jam: Jam | None = None
        self._importing = Importing()
        self._import_timer: asyncio.TimerHandle | None = None
        self._import_expired = False
        self._overrun: Overrun | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._closing = False
        self._stale = False
        self._has_failed = False
        self._source_changed = asyncio.Event()  # The source has changed, and may import now.
        self._since = time.monotonic()
        self._born = time.monotonic()
        self._chunks = 0
        self._start_seconds = 0.0  # Seconds that the last worker took to be ready.

    @property
    def held(self) -> HeldChunk | None:
        """The chunk that the worker is in."""
        entry = self._queue.first
        return entry.held if entry is not None and not entry.revoked else None

    @property
    def is_idle(self) -> bool:
        return self.is_ready and not self._queue

    @property
    def item(self) -> int | None:
        """The item in progress."""
        worker, entry = self._worker, self._queue.first
        if worker is None or entry is None or worker.progress.begun != entry.number:
            return None
        return worker.progress.item

    def _mark(self) -> str:
        """Return the mark of output that bypasses ``sys.stdout``. Runs in another thread.

        Such output takes a moment to arrive: between two chunks the last item is still its author.
        """
        worker, entry = self._worker, self._queue.first
        if worker is None:
            return "[worker]"
        try:
            progress = worker.progress
            in_first = entry is not None and progress.begun == entry.number
            held = entry.held if entry is not None and in_first else self._latest
            item = progress.latest_item
        except ValueError:
            return worker.describe()  # Its pages have just been unmapped.
        return worker.describe() if held is None or item is None else _mark_of(held, item)

    def status(self) -> CoreStatus:
        """Describe this core for ``jetmap status``."""
        held = self.held
        state = "busy" if held else "idle" if self.is_ready else "starting"
        if self._has_failed and not self.is_ready:
            state = "failed"
        return CoreStatus(
            pid=self._worker.pid if self._worker else None,
            cpu=self.cpu,
            state=state,  # type: ignore[arg-type]
            function=held.head.function if held else None,
            map=held.head.map if held else None,
            seconds=round(time.monotonic() - self._since, 3),
            chunks=self._chunks,
        )

    async def run(self) -> None:
        """Start a worker, serve it, and replace it when it has died, until ``close``."""
        backoff = Backoff(*RESTART_PAUSES)
        while not self._closing:
            try:
                was_ready = await self._serve_one()
            except Exception:
                was_ready = False
                logger.exception("core %d: internal error; a new worker is started", self.number)
            if was_ready or (not self._closing and await self._await_change(backoff.seconds)):
                backoff.reset()
            else:
                backoff.grow()
        await self._recycling.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def has(self, held: HeldChunk) -> bool:
        """Whether this worker has that chunk and has not ended it."""
        return self._queue.has(held)

    def assign(self, chunks: list[HeldChunk]) -> None:
        """Give the idle worker chunks, to be computed one after the other."""
        worker = self._worker
        assert worker is not None and self.is_idle
        worker.progress.ask_to_stop(False)
        first, *rest = [self._queue.push(held) for held in chunks]
        self._begin(first)
        for held in chunks:
            worker.send_chunk(held.data)
        if rest:
            self._jam = Jam(worker.progress, first.number, self._on_jam)

    def stop(self, held: HeldChunk, grace: float) -> None:
        """End the chunk in progress before its next item; after ``grace`` seconds kill the worker.

        The items computed until then are reported. A chunk that has not begun ends when it does.
        """
        entry = self._queue.first
        if self._worker is None or entry is None or self.held is not held:
            return
        self._worker.progress.ask_to_stop()
        self._kill_later(entry, grace)

    def drain(self, grace: float) -> None:
        """End the chunk in progress as ``stop`` does, and the chunks behind it as they begin."""
        self._draining = True
        if self.held is not None:
            self.stop(self.held, grace)

    async def replace(self) -> None:
        """Replace the worker by a fresh one: now if it is idle, else after its chunk."""
        self._stale = True
        self._source_changed.set()
        await self._recycling.drop()
        if self.is_idle:
            self._kill("stopped")

    async def recycle(self) -> None:
        """Start a successor for a worker that has served long enough; once a second.

        The worker goes when its successor is ready.
        """
        await self._recycling.check(self._is_spent)
        if self._recycling.is_warm and self.is_idle:
            self._kill("stopped")

    def close(self) -> None:
        """End the worker for good; ``run`` then returns."""
        self._closing = True
        self._source_changed.set()
        self._kill("stopped")

    async def _await_change(self, patience: float) -> bool:
        """Wait, after a failed start, and return whether the source has changed meanwhile."""
        try:
            async with asyncio.timeout(patience):
                await self._source_changed.wait()
        except TimeoutError:
            return False
        return True

    async def _serve_one(self) -> bool:
        """Serve one worker until it is dead. Returns whether it ever was ready."""
        self._stale = False
        self._source_changed.clear()
        self._born = self._since = time.monotonic()
        self._chunks = 0
        self._kill_reason = self._latest = None
        try:
            successor = self._recycling.take()
            if successor is not None:
                logger.info("core %d: a worn worker is replaced by a fresh one", self.number)
                self._supervisor.on_recycled()
            worker = successor or await self._start()
        except StartError as error:
            await self._on_start_failed(error.failure)
            return False
        self._worker = worker
        worker.mark_output(self._mark)
        if self._closing:
            self._kill("stopped")
        failure: StartFailed | None = None
        was_ready = False
        try:
            while (received := await worker.receive()) is not None:
                kind, payload = received
                if kind == frames.READY:
                    ready = _ready(payload)
                    is_first = not was_ready and not ready.more
                    await self._on_ready(worker, ready, is_first=is_first)
                    was_ready = was_ready or is_first
                elif kind == frames.IMPORTING:
                    self._on_importing(_importing(payload))
                elif kind == frames.BROKEN:
                    await self._supervisor.on_import_failed(_broken(payload), fatal=False)
                elif kind == frames.FAILED:
                    failure = _failed(payload)
                else:
                    await self._on_frame(kind, payload)
                if not worker.has_answered:
                    await self._supervisor.flush()
        except Exception:
            # For example, a process that the function forked wrote into the pipe.
            logger.exception("worker (pid %d) sent a bad frame; it is replaced", worker.pid)
            self._kill("stopped")
        finally:
            worker.kill()
        await self._on_death(worker, await worker.death(), failure, was_ready)
        await self._supervisor.flush()
        return was_ready

    async def _on_ready(self, worker: WorkerProcess, ready: Ready, *, is_first: bool) -> None:
        await self._supervisor.on_worker_ready(self, ready)
        if is_first:
            self._has_failed = False
            self._start_seconds = worker.start_seconds
            self._since = time.monotonic()
            if self._kill_reason is None and not worker.is_dead:
                self.is_ready = True
                await self._supervisor.on_core_freed(self)
        await self._supervisor.announce()

    async def _on_frame(self, kind: bytes, payload: bytes) -> None:
        """Handle a frame about the chunk in progress."""
        if kind == frames.STALE:
            self._expect_death(KillReason("stopped"))
        elif kind == frames.WARMED:
            self._warm_ups.on_warmed(*_warmed(payload))
        elif kind == frames.PART:
            if self.held is not None:
                await self._supervisor.on_report(self.held, payload, False)
        elif (entry := self._queue.pop()) is not None:
            self._latest = entry.held
            self._cancel_watches(jam=len(self._queue) < 2)
            self._chunks += kind == frames.LAST
            now = time.monotonic()
            is_short, self._since = now - self._since < SHORT_SECONDS, now
            if is_short and not self._queue and kind == frames.LAST and not entry.revoked:
                # The caller waits for the result longer than the core for its next chunk.
                try:
                    await self._supervisor.on_report(entry.held, payload, True)
                    await self._supervisor.flush()
                finally:
                    await self._advance()
            else:
                await self._requeue_and_report(entry, kind, payload)
            if self._recycling.has_served(self._chunks):
                await self._recycling.check(self._is_spent)

    async def _requeue_and_report(self, entry: QueueEntry, kind: bytes, payload: bytes) -> None:
        """Pull the next chunk before the report goes out: the core waits for the pull."""
        try:
            await self._advance()
        finally:
            if kind != frames.LAST and not entry.revoked:
                await self._supervisor.on_chunk_ended(entry.held, None)
            elif not entry.revoked:
                await self._supervisor.on_report(entry.held, payload, True)

    async def _advance(self) -> None:
        """Go on to the worker's next chunk, or free the core."""
        entry = self._queue.first
        if entry is not None:
            if entry.revoked:
                self._kill_later(entry, SKIP_SECONDS)
            elif self.is_ready:
                self._begin(entry)
        elif self.is_ready and (self._stale or self._recycling.is_warm):
            self.is_ready = False
            self._kill("stopped")
        elif self.is_ready and self._worker is not None and not self._worker.is_dead:
            await self._supervisor.on_core_freed(self)
        else:
            self.is_ready = False

    async def _on_death(
        self, worker: WorkerProcess, death: Death, failure: StartFailed | None, was_ready: bool
    ) -> None:
        """Report the chunks that were lost with a worker, and the reason for its death."""
        self._cancel_watches()
        self._lose_core()
        importing, expired = self._importing, self._import_expired
        self._on_importing(Importing())
        lost = [entry for entry in self._queue if not entry.revoked]
        self._queue = WorkerQueue()
        begun, item = worker.progress.begun, worker.progress.item
        worker.close(_mark_of(lost[0].held, item) if lost and item is not None else "")
        self._worker = None
        self._spawn(worker.gone())
        for entry in lost:
            crash = None
            if entry.number == begun and not importing.home:
                crash = crash_of(entry, death, item, self._kill_reason, self._options.host)
                crash.start_seconds = self._start_seconds
            await self._supervisor.on_chunk_ended(entry.held, crash)
        if importing.home and (expired or self._kill_reason is None):
            why = f"the worker {death} while it imported {importing.home}"
            if expired:
                why = (
                    f"the import of {importing.home} did not end within "
                    f"{self._options.workers.start_timeout:g} s (start_timeout)"
                )
            files = [importing.file] if importing.file else []
            await self._supervisor.on_import_failed(Broken(importing.home, why, files), fatal=True)
            return
        if lost:
            return
        if not was_ready and not self._closing:
            await self._on_start_failed(failure or failure_of(death))
        elif was_ready and self._kill_reason is None:
            logger.warning("an idle worker (pid %d) %s; it is replaced", worker.pid, death)

    def _on_importing(self, importing: Importing) -> None:
        """Limit the time for which the import of a caller's module may hold up this core."""
        self._importing, self._import_expired = importing, False
        if self._import_timer is not None:
            self._import_timer.cancel()
            self._import_timer = None
        if importing.home:
            loop = asyncio.get_running_loop()
            patience = self._options.workers.start_timeout
            self._import_timer = loop.call_later(patience, self._on_import_timeout)

    def _on_import_timeout(self) -> None:
        self._import_expired = True
        self._kill("stopped")

    async def _on_start_failed(self, failure: StartFailed) -> None:
        self._has_failed = True
        await self._supervisor.on_worker_failed(self, failure)

    def _begin(self, entry: QueueEntry) -> None:
        """Start the watches for the chunk that the worker computes from now on."""
        assert self._worker is not None
        progress, held = self._worker.progress, entry.held
        held.started = True
        self._since = time.monotonic()
        if (timeout := held.head.timeout) is not None:
            self._deadline = Deadline(
                progress,
                entry.number,
                timeout,
                partial(self._on_timeout, entry),
                partial(self._warm_ups.allowance, held.head.function),
            )
        if held.head.count > 1 and (budget := held.head.budget):
            spent = partial(self._on_overrun, entry)
            self._overrun = Overrun(progress, entry.number, held.head.start, budget, spent)
        if progress.stopping and not self._draining:
            # The request was meant for the chunk before. (A chunk that saw it is handed back.)
            progress.ask_to_stop(False)
        if held.unwanted:
            self.stop(held, self._options.settings.chunks.withdraw_grace)

    def _on_overrun(self, entry: QueueEntry) -> None:
        """Send the items behind the one in progress elsewhere: the chunk's budget is spent."""
        worker, held = self._worker, entry.held
        if worker is None or self.held is not held or self._next_item(entry) is None:
            return
        worker.progress.ask_to_stop()
        start = self._next_item(entry)
        if start is not None and not held.unwanted:
            rest = Rest(start, time.monotonic() - self._since)
            self._spawn(self._supervisor.on_rest(held, rest))

    def _next_item(self, entry: QueueEntry) -> int | None:
        """Return the index of the item behind the one in progress, if this chunk has one."""
        item, head = self.item, entry.held.head
        if item is None or not head.start <= item < head.start + head.count - 1:
            return None
        return item + 1

    def _on_jam(self) -> None:
        """Hand back the chunks that have not begun: other cores may be idle.

        The chunk in progress is not as short as it was expected to be.
        """
        if self._worker is None:
            return
        begun = self._worker.progress.skip(self._queue.last)
        if revoked := self._queue.revoke(begun):
            self._spawn(self._report_revoked(revoked))

    async def _report_revoked(self, revoked: list[QueueEntry]) -> None:
        for entry in revoked:
            await self._supervisor.on_chunk_ended(entry.held, None)
        await self._supervisor.flush()

    def _is_spent(self) -> bool:
        """Whether this worker has served long enough."""
        worker = self._worker
        return (
            self.is_ready
            and worker is not None
            and self._recycling.is_spent(worker, self._chunks, self._born)
        )

    def _on_timeout(self, entry: QueueEntry, item: int, cold: bool) -> None:
        """Kill the worker for an item that computes for too long.

        cold: whether it is the first call of its function in this worker.
        """
        beside = self._warm_ups.on_expired(entry.held.head.function) if cold else ""
        self._kill("timeout", entry, item, beside)

    def _kill(
        self,
        reason: str,
        entry: QueueEntry | None = None,
        item: int | None = None,
        beside: str = "",
    ) -> None:
        if self._worker is not None:
            self._expect_death(KillReason(reason, entry, item, beside))
            self._worker.kill()

    def _kill_later(self, entry: QueueEntry, grace: float) -> None:
        """Kill the worker if this chunk has not ended in ``grace`` seconds."""

        def kill() -> None:
            if self._queue.first is entry:
                self._kill("stopped")

        asyncio.get_running_loop().call_later(grace, kill)

    def _expect_death(self, reason: KillReason) -> None:
        """Give the worker no more chunks: it is about to die. The first reason counts."""
        self._kill_reason = self._kill_reason or reason
        self._lose_core()

    def _lose_core(self) -> None:
        idle, self.is_ready = self.is_idle, False
        if idle:
            self._supervisor.on_core_lost(self)

    def _cancel_watches(self, *, jam: bool = True) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._overrun is not None:
            self._overrun.cancel()
            self._overrun = None
        if jam and self._jam is not None:
            self._jam.cancel()
            self._jam = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _mark_of(held: HeldChunk, item: int) -> str:
    return f"[{held.head.map} item {item}]"
