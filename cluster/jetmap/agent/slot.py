"""One core: its worker process, what that computes now, and what happens when it dies."""

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

from .blame import Order, crash_of
from .holdings import Holding
from .options import AgentOptions
from .recycling import RESTART_PAUSES, Recycling
from .warm_ups import WarmUps
from .watchdogs import Deadline, Jam, Overrun
from .worker_process import Death, StartError, WorkerProcess, failure_of
from .worker_queue import Given, Line

logger = logging.getLogger(__name__)

SHORT_SECONDS = 0.005  # A chunk of which nobody notices that the core idles a moment longer.
SKIP_SECONDS = 1.0  # In which a worker passes over a chunk: it takes microseconds.

StartWorker = Callable[[AgentOptions, int | None, Setup], Awaitable[WorkerProcess]]
"""How a slot gets its worker process; tests pass one of their own."""

_ready = msgspec.msgpack.Decoder(Ready).decode
_failed = msgspec.msgpack.Decoder(StartFailed).decode
_warmed = msgspec.msgpack.Decoder(tuple[str, float]).decode
_importing = msgspec.msgpack.Decoder(Importing).decode
_broken = msgspec.msgpack.Decoder(Broken).decode


class Supervisor(Protocol):
    """What a slot tells its agent. ``ended``: without a result; crash: why, or None if the chunk
    has not begun, or what it gave is lost, for which no item is to blame."""

    async def worker_ready(self, slot: Slot, ready: Ready) -> None: ...
    async def announce(self) -> None: ...
    async def worker_failed(self, slot: Slot, failure: StartFailed) -> None: ...
    async def import_failed(self, broken: Broken, *, fatal: bool) -> None: ...
    async def core_freed(self, slot: Slot) -> None: ...
    def core_lost(self, slot: Slot) -> None: ...
    def recycled(self) -> None: ...
    async def reported(self, held: Holding, report: bytes, last: bool) -> None: ...
    async def gave_back(self, held: Holding, rest: Rest) -> None: ...
    async def ended(self, held: Holding, crash: Crash | None) -> None: ...
    async def flush(self) -> None: ...


class Slot:
    """Keeps one worker alive on one core; gives it a chunk at a time, or several small ones."""

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
        self._warm_ups = warm_ups or WarmUps(options.start_timeout)
        self._start = partial(start, options, cpu, setup)
        self._recycling = Recycling(options, self._start, self._cannot_start)
        self._worker: WorkerProcess | None = None
        self._line = Line()
        self._latest: Holding | None = None  # What the worker has ended last.
        self._ordered: Order | None = None
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
        self._mended = asyncio.Event()  # The source has changed, and may import now.
        self._since = time.monotonic()
        self._born = time.monotonic()
        self._chunks = 0
        self._start_seconds = 0.0  # That the last worker took until it was ready.

    @property
    def held(self) -> Holding | None:
        """The chunk that the worker is in."""
        given = self._line.first
        return given.held if given is not None and not given.revoked else None

    @property
    def is_idle(self) -> bool:
        return self.is_ready and not self._line

    @property
    def item(self) -> int | None:
        """The item in progress."""
        worker, given = self._worker, self._line.first
        if worker is None or given is None or worker.progress.begun != given.number:
            return None
        return worker.progress.item

    def _mark(self) -> str:
        """What stands before what the worker prints past us; called from another thread.

        That takes a moment to arrive: between two chunks it is still the last item's.
        """
        worker, given = self._worker, self._line.first
        if worker is None:
            return "[worker]"
        try:
            progress = worker.progress
            in_first = given is not None and progress.begun == given.number
            held = given.held if given is not None and in_first else self._latest
            item = progress.latest_item
        except ValueError:
            return worker.describe()  # Its pages have just been given back.
        return worker.describe() if held is None or item is None else _mark_of(held, item)

    def status(self) -> CoreStatus:
        """For ``jetmap status``."""
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
        """Until ``close``: starts a worker, serves it, replaces it when it has died."""
        backoff = Backoff(*RESTART_PAUSES)
        while not self._closing:
            try:
                was_ready = await self._serve_one()
            except Exception:
                was_ready = False
                logger.exception(
                    "core %d: a fault of the agent's; a worker is started anew", self.number
                )
            if was_ready or (not self._closing and await self._is_mended(backoff.seconds)):
                backoff.reset()
            else:
                backoff.grow()
        await self._recycling.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def has(self, held: Holding) -> bool:
        """Whether this worker was given that chunk and has not ended it."""
        return self._line.has(held)

    def assign(self, chunks: list[Holding]) -> None:
        """Gives the idle worker chunks, to be computed one after the other."""
        worker = self._worker
        assert worker is not None and self.is_idle
        worker.progress.ask_to_stop(False)
        first, *rest = [self._line.give(held) for held in chunks]
        self._begin(first)
        for held in chunks:
            worker.send_chunk(held.data)
        if rest:
            self._jam = Jam(worker.progress, first.number, self._hand_on)

    def stop(self, held: Holding, grace: float) -> None:
        """Ends a chunk before its next item; after ``grace`` seconds by killing the worker.

        What was computed until then is reported. One that has not begun ends when it does.
        """
        given = self._line.first
        if self._worker is None or given is None or self.held is not held:
            return
        self._worker.progress.ask_to_stop()
        self._kill_later(given, grace)

    def drain(self, grace: float) -> None:
        """Ends what it has, as ``stop`` does, chunks that have not begun at once."""
        self._draining = True
        if self.held is not None:
            self.stop(self.held, grace)

    async def replace(self) -> None:
        """Replaces the worker by a fresh one: now if it is idle, else after its chunk."""
        self._stale = True
        self._mended.set()
        await self._recycling.drop()
        if self.is_idle:
            self._kill("stopped")

    async def recycle(self) -> None:
        """Once a second: a worker that has served long enough gets a successor, and goes
        when that is warm."""
        await self._recycling.look(self._is_spent)
        if self._recycling.is_warm and self.is_idle:
            self._kill("stopped")

    def close(self) -> None:
        """Ends the worker for good; ``run`` then returns."""
        self._closing = True
        self._mended.set()
        self._kill("stopped")

    async def _is_mended(self, patience: float) -> bool:
        """After a worker that could not start: waits; whether its source was changed meanwhile."""
        try:
            async with asyncio.timeout(patience):
                await self._mended.wait()
        except TimeoutError:
            return False
        return True

    async def _serve_one(self) -> bool:
        """One worker's life. Returns whether it ever was ready."""
        self._stale = False
        self._mended.clear()
        self._born = self._since = time.monotonic()
        self._chunks = 0
        self._ordered = self._latest = None
        try:
            successor = self._recycling.take()
            if successor is not None:
                logger.info("core %d: a worn worker is replaced by a fresh one", self.number)
                self._supervisor.recycled()
            worker = successor or await self._start()
        except StartError as error:
            await self._cannot_start(error.failure)
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
                    await self._said_ready(worker, ready, is_first=is_first)
                    was_ready = was_ready or is_first
                elif kind == frames.IMPORTING:
                    self._imports(_importing(payload))
                elif kind == frames.BROKEN:
                    await self._supervisor.import_failed(_broken(payload), fatal=False)
                elif kind == frames.FAILED:
                    failure = _failed(payload)
                else:
                    await self._said(kind, payload)
                if not worker.has_answered:
                    await self._supervisor.flush()
        except Exception:
            # Such as frames into which a process wrote that the function had forked.
            logger.exception("worker (pid %d) is not understood; it is replaced", worker.pid)
            self._kill("stopped")
        finally:
            worker.kill()
        await self._buried(worker, await worker.death(), failure, was_ready)
        await self._supervisor.flush()
        return was_ready

    async def _said_ready(self, worker: WorkerProcess, ready: Ready, *, is_first: bool) -> None:
        await self._supervisor.worker_ready(self, ready)
        if is_first:
            self._has_failed = False
            self._start_seconds = worker.start_seconds
            self._since = time.monotonic()
            if self._ordered is None and not worker.is_dead:
                self.is_ready = True
                await self._supervisor.core_freed(self)
        await self._supervisor.announce()

    async def _said(self, kind: bytes, payload: bytes) -> None:
        """Something of the chunk that it is in."""
        if kind == frames.STALE:
            self._expect_death(Order("stopped"))
        elif kind == frames.WARMED:
            self._warm_ups.warmed(*_warmed(payload))
        elif kind == frames.PART:
            if self.held is not None:
                await self._supervisor.reported(self.held, payload, False)
        elif (given := self._line.answered()) is not None:
            self._latest = given.held
            self._cancel_watches(jam=len(self._line) < 2)
            self._chunks += kind == frames.LAST
            now = time.monotonic()
            is_short, self._since = now - self._since < SHORT_SECONDS, now
            if is_short and not self._line and kind == frames.LAST and not given.revoked:
                # Its caller waits for the result longer than the core for what comes next.
                try:
                    await self._supervisor.reported(given.held, payload, True)
                    await self._supervisor.flush()
                finally:
                    await self._go_on()
            else:
                await self._go_on_and_tell(given, kind, payload)
            if self._recycling.has_served(self._chunks):
                await self._recycling.look(self._is_spent)

    async def _go_on_and_tell(self, given: Given, kind: bytes, payload: bytes) -> None:
        """The next chunk is pulled before the result goes out: the core waits for the pull."""
        try:
            await self._go_on()
        finally:
            if kind != frames.LAST and not given.revoked:
                await self._supervisor.ended(given.held, None)
            elif not given.revoked:
                await self._supervisor.reported(given.held, payload, True)

    async def _go_on(self) -> None:
        """After a chunk: to the next that the worker has, or the core is free."""
        given = self._line.first
        if given is not None:
            if given.revoked:
                self._kill_later(given, SKIP_SECONDS)
            elif self.is_ready:
                self._begin(given)
        elif self.is_ready and (self._stale or self._recycling.is_warm):
            self.is_ready = False
            self._kill("stopped")
        elif self.is_ready and self._worker is not None and not self._worker.is_dead:
            await self._supervisor.core_freed(self)
        else:
            self.is_ready = False

    async def _buried(
        self, worker: WorkerProcess, death: Death, failure: StartFailed | None, was_ready: bool
    ) -> None:
        """After a worker's death: tells the agent what was lost by it."""
        self._cancel_watches()
        self._lose_core()
        importing, expired = self._importing, self._import_expired
        self._imports(Importing())
        lost = [given for given in self._line if not given.revoked]
        self._line = Line()
        begun, item = worker.progress.begun, worker.progress.item
        worker.close(_mark_of(lost[0].held, item) if lost and item is not None else "")
        self._worker = None
        self._spawn(worker.gone())
        for given in lost:
            crash = None
            if given.number == begun and not importing.home:
                crash = crash_of(given, death, item, self._ordered, self._options.host)
                crash.start_seconds = self._start_seconds
            await self._supervisor.ended(given.held, crash)
        if importing.home and (expired or self._ordered is None):
            why = f"the worker {death} while it imported {importing.home}"
            if expired:
                why = (
                    f"the import of {importing.home} did not end within "
                    f"{self._options.start_timeout:g} s (start_timeout)"
                )
            files = [importing.file] if importing.file else []
            await self._supervisor.import_failed(Broken(importing.home, why, files), fatal=True)
            return
        if lost:
            return
        if not was_ready and not self._closing:
            await self._cannot_start(failure or failure_of(death))
        elif was_ready and self._ordered is None:
            logger.warning("an idle worker (pid %d) %s; it is replaced", worker.pid, death)

    def _imports(self, importing: Importing) -> None:
        """The worker imports a caller's module, which must not hold up this core for ever."""
        self._importing, self._import_expired = importing, False
        if self._import_timer is not None:
            self._import_timer.cancel()
            self._import_timer = None
        if importing.home:
            loop = asyncio.get_running_loop()
            patience = self._options.start_timeout
            self._import_timer = loop.call_later(patience, self._import_hangs)

    def _import_hangs(self) -> None:
        self._import_expired = True
        self._kill("stopped")

    async def _cannot_start(self, failure: StartFailed) -> None:
        self._has_failed = True
        await self._supervisor.worker_failed(self, failure)

    def _begin(self, given: Given) -> None:
        """From now on the worker computes this chunk."""
        assert self._worker is not None
        progress, held = self._worker.progress, given.held
        held.started = True
        self._since = time.monotonic()
        if (timeout := held.head.timeout) is not None:
            self._deadline = Deadline(
                progress,
                given.number,
                timeout,
                partial(self._overdue, given),
                partial(self._warm_ups.allowance, held.head.function),
            )
        if held.head.count > 1 and (budget := held.head.budget):
            spent = partial(self._give_back, given)
            self._overrun = Overrun(progress, given.number, held.head.start, budget, spent)
        if progress.stopping and not self._draining:
            # That was meant for the chunk before. (One that saw it already is handed back.)
            progress.ask_to_stop(False)
        if held.unwanted:
            self.stop(held, self._options.withdraw_grace)

    def _give_back(self, given: Given) -> None:
        """The chunk's budget is spent, and it is still in an item: those behind that run
        elsewhere."""
        worker, held = self._worker, given.held
        if worker is None or self.held is not held or self._behind(given) is None:
            return
        worker.progress.ask_to_stop()
        start = self._behind(given)
        if start is not None and not held.unwanted:
            rest = Rest(start, time.monotonic() - self._since)
            self._spawn(self._supervisor.gave_back(held, rest))

    def _behind(self, given: Given) -> int | None:
        """The index of the first item of this chunk behind the one in progress, if there is one."""
        item, head = self.item, given.held.head
        if item is None or not head.start <= item < head.start + head.count - 1:
            return None
        return item + 1

    def _hand_on(self) -> None:
        """The chunk in progress is not as short as those behind it were told: other cores may be
        idle, and they have not begun."""
        if self._worker is None:
            return
        begun = self._worker.progress.skip(self._line.last)
        if revoked := self._line.revoke(begun):
            self._spawn(self._handed_on(revoked))

    async def _handed_on(self, revoked: list[Given]) -> None:
        for given in revoked:
            await self._supervisor.ended(given.held, None)
        await self._supervisor.flush()

    def _is_spent(self) -> bool:
        """Whether this worker has served long enough."""
        worker = self._worker
        return (
            self.is_ready
            and worker is not None
            and self._recycling.is_spent(worker, self._chunks, self._born)
        )

    def _overdue(self, given: Given, item: int, cold: bool) -> None:
        """An item computes for too long; cold: at its function's first call in this worker."""
        beside = self._warm_ups.expired(given.held.head.function) if cold else ""
        self._kill("timeout", given, item, beside)

    def _kill(
        self, reason: str, given: Given | None = None, item: int | None = None, beside: str = ""
    ) -> None:
        if self._worker is not None:
            self._expect_death(Order(reason, given, item, beside))
            self._worker.kill()

    def _kill_later(self, given: Given, grace: float) -> None:
        """Kills the worker if this chunk is not ended by then."""

        def kill() -> None:
            if self._line.first is given:
                self._kill("stopped")

        asyncio.get_running_loop().call_later(grace, kill)

    def _expect_death(self, order: Order) -> None:
        """The worker is about to die: from now on it gets nothing. The first order counts."""
        self._ordered = self._ordered or order
        self._lose_core()

    def _lose_core(self) -> None:
        idle, self.is_ready = self.is_idle, False
        if idle:
            self._supervisor.core_lost(self)

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


def _mark_of(held: Holding, item: int) -> str:
    return f"[{held.head.map} item {item}]"
