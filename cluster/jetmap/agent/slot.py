"""One core: its worker process, what that computes now, and what happens when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Protocol

import msgspec

from jetmap.messages import CoreStatus, Crash, Ready, Setup, StartFailed
from jetmap.worker import pipe

from .holdings import Holding
from .options import AgentOptions
from .worker_process import Death, WorkerProcess, crash_of

logger = logging.getLogger(__name__)

FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0

_ready = msgspec.msgpack.Decoder(Ready).decode
_failed = msgspec.msgpack.Decoder(StartFailed).decode


class Supervisor(Protocol):
    """What a slot tells its agent."""

    async def worker_ready(self, slot: Slot, ready: Ready) -> None: ...
    async def announce(self) -> None: ...
    async def worker_failed(self, slot: Slot, failure: StartFailed) -> None: ...
    async def core_freed(self, slot: Slot) -> None: ...
    def core_lost(self, slot: Slot) -> None: ...
    async def reported(self, held: Holding, report: bytes, last: bool) -> None: ...
    async def crashed(self, held: Holding, crash: Crash) -> None: ...
    async def flush(self) -> None: ...


class Slot:
    """Keeps one worker alive on one core; gives it a chunk at a time."""

    def __init__(
        self,
        number: int,
        cpu: int | None,
        options: AgentOptions,
        setup: Setup,
        supervisor: Supervisor,
    ) -> None:
        self.number = number
        self.cpu = cpu
        self.held: Holding | None = None
        self.is_ready = False
        self._options = options
        self._setup = setup
        self._supervisor = supervisor
        self._worker: WorkerProcess | None = None
        self._successor: WorkerProcess | None = None
        self._ordered: tuple[str, int | None] | None = None  # Why and in which item we killed.
        self._waiting: deque[Holding] = deque()  # Sent to the worker behind ``held``.
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._closing = False
        self._stale = False
        self._failed = False
        self._mended = asyncio.Event()  # The source has changed, and may import now.
        self._since = time.monotonic()
        self._born = time.monotonic()
        self._chunks = 0

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.held is None

    @property
    def item(self) -> int | None:
        """The item in progress."""
        if self._worker is None or self.held is None:
            return None
        return self._worker.progress.item

    def status(self) -> CoreStatus:
        """For ``jetmap status``."""
        held = self.held
        state = "busy" if held else "idle" if self.is_ready else "starting"
        if self._failed and not self.is_ready:
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
        backoff = FIRST_BACKOFF
        while not self._closing:
            was_ready = await self._serve_one()
            if was_ready or (not self._closing and await self._is_mended(backoff)):
                backoff = FIRST_BACKOFF
            else:
                backoff = min(LAST_BACKOFF, backoff * 2)

    def has(self, held: Holding) -> bool:
        """Whether this worker was given that chunk and has not ended it."""
        return self.held is held or held in self._waiting

    def assign(self, chunks: list[Holding]) -> None:
        """Gives the idle worker chunks, to be computed one after the other."""
        assert self._worker is not None and self.held is None
        self._ordered = None
        self._worker.progress.ask_to_stop(False)
        self._waiting.extend(chunks[1:])
        self._begin(chunks[0])
        for held in chunks:
            self._worker.send_chunk(held.data)

    def stop(self, held: Holding, grace: float) -> None:
        """Ends a chunk before its next item; after ``grace`` seconds by killing the worker.

        What was computed until then is reported. One that has not begun ends when it does.
        """
        worker = self._worker
        if worker is None or self.held is not held:
            return
        worker.progress.ask_to_stop()

        def kill() -> None:
            if self.held is held:
                self._kill("stopped", None)

        asyncio.get_running_loop().call_later(grace, kill)

    def end_after_item(self, map: str, number: int) -> None:
        """Ends this chunk, if it is computed here, with the item that it is in."""
        if self.held is not None and self.held.key == (map, number) and self._worker is not None:
            self._worker.progress.ask_to_stop()

    def drain(self, grace: float) -> None:
        """Ends what it has, as ``stop`` does, chunks that have not begun at once."""
        self._draining = True
        if self.held is not None:
            self.stop(self.held, grace)

    async def replace(self) -> None:
        """Replaces the worker by a fresh one: now if it is idle, else after its chunk."""
        self._stale = True
        self._mended.set()
        if self.is_idle:
            self._retire()

    async def recycle(self) -> None:
        """Once a second: a worker that has served long enough gets a successor, and goes
        when that is warm."""
        if self._successor is None:
            if self.is_ready and self._is_spent():
                self._successor = await WorkerProcess.start(self._options, self.cpu, self._setup)
        elif self._successor.has_answered and self.is_idle:
            self._retire()

    def close(self) -> None:
        """Ends the worker for good; ``run`` then returns."""
        self._closing = True
        self._mended.set()
        self._kill("stopped", None)
        if self._successor is not None:
            self._successor.kill()

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
        self._ordered = None
        worker, self._successor = self._successor, None
        if worker is None:
            worker = await WorkerProcess.start(self._options, self.cpu, self._setup)
        self._worker = worker
        if self._closing:
            worker.kill()
        failure: StartFailed | None = None
        was_ready = False
        try:
            while (received := await worker.receive()) is not None:
                kind, payload = received
                if kind in (pipe.PART, pipe.LAST):
                    await self._report(payload, kind == pipe.LAST)
                elif kind == pipe.READY:
                    await self._supervisor.worker_ready(self, _ready(payload))
                    if not was_ready:
                        was_ready = self.is_ready = True
                        self._failed = False
                        self._since = time.monotonic()
                        await self._supervisor.core_freed(self)
                    await self._supervisor.announce()
                elif kind == pipe.FAILED:
                    failure = _failed(payload)
                elif kind == pipe.STALE:
                    self._ordered = ("stopped", None)
                if not worker.has_answered:
                    await self._supervisor.flush()
            death = await worker.death()
        finally:
            worker.kill()
        await self._buried(worker, death, failure, was_ready)
        await self._supervisor.flush()
        return was_ready

    async def _report(self, payload: bytes, last: bool) -> None:
        held = self.held
        if held is None:
            return
        if not last:
            await self._supervisor.reported(held, payload, False)
            return
        self._cancel_timer()
        self.held = None
        self._chunks += 1
        self._since = time.monotonic()
        if self._waiting:
            self._begin(self._waiting.popleft())
            await self._supervisor.reported(held, payload, True)
            return
        # The next chunk is pulled before the result goes out: the core waits for the pull.
        ripe = self._successor is not None and self._successor.has_answered
        if self._stale or ripe:
            self.is_ready = False
            self._retire()
        else:
            await self._supervisor.core_freed(self)
        await self._supervisor.reported(held, payload, True)

    async def _buried(
        self, worker: WorkerProcess, death: Death, failure: StartFailed | None, was_ready: bool
    ) -> None:
        """After a worker's death: tells the agent what was lost by it."""
        self._cancel_timer()
        held, self.held = self.held, None
        waiting = list(self._waiting)
        self._waiting.clear()
        idle, self.is_ready = self.is_ready and held is None, False
        item = worker.progress.item
        worker.close()
        self._worker = None
        if idle:
            self._supervisor.core_lost(self)
        if held is not None:
            await self._supervisor.crashed(held, self._explain(held, death, item))
        for unbegun in waiting:
            await self._supervisor.crashed(
                unbegun, Crash(None, "stopped", "the worker was lost before it")
            )
        if held is not None:
            return
        if not was_ready and not self._closing:
            self._failed = True
            failure = failure or StartFailed(
                "WorkerStartFailed", f"the worker {death} while it started", ""
            )
            await self._supervisor.worker_failed(self, failure)
        elif was_ready and self._ordered is None:
            logger.warning("an idle worker (pid %d) %s; it is replaced", worker.pid, death)

    def _begin(self, held: Holding) -> None:
        """From now on the worker computes this chunk."""
        self.held = held
        held.started = True
        self._since = time.monotonic()
        if held.head.timeout is not None:
            self._watch(held, held.head.timeout)
        if self._worker is not None and self._worker.progress.stopping and not self._draining:
            # That was meant for the chunk before. (One that saw it already is handed back.)
            self._worker.progress.ask_to_stop(False)
        if held.unwanted:
            self.stop(held, self._options.withdraw_grace)

    def _explain(self, held: Holding, death: Death, item: int | None) -> Crash:
        host = self._options.host
        if self._ordered is None:
            return crash_of(death, item, host)
        reason, blamed = self._ordered
        if reason == "timeout" and blamed == item and blamed is not None:
            message = (
                f"it computed for longer than its timeout of {held.head.timeout:g} s; "
                "its worker was replaced"
            )
            return Crash(blamed, "timeout", message, host=host)
        # Killed for an item that it had just finished, or for none: nobody is to blame.
        return Crash(None, "stopped", "the worker was stopped", host=host)

    def _is_spent(self) -> bool:
        """Whether this worker has served long enough."""
        options = self._options
        if options.recycle_chunks is not None and self._chunks >= options.recycle_chunks:
            return True
        age = time.monotonic() - self._born
        if options.recycle_age is not None and age >= options.recycle_age:
            return True
        if options.recycle_memory is not None and self._worker is not None:
            return self._worker.memory() >= options.recycle_memory
        return False

    def _retire(self) -> None:
        """Ends an idle worker; ``run`` starts the next one."""
        if self.is_ready:
            self.is_ready = False
            self._supervisor.core_lost(self)
        self._kill("stopped", None)

    def _kill(self, reason: str, item: int | None) -> None:
        if self._worker is not None and self._ordered is None:
            self._ordered = (reason, item)
        if self._worker is not None:
            self._worker.kill()

    def _watch(self, held: Holding, timeout: float) -> None:
        """Kills the worker when one item has computed for longer than ``timeout`` seconds."""

        def look() -> None:
            worker = self._worker
            if self.held is not held or worker is None:
                return
            item, started = worker.progress.item, worker.progress.started_ns
            left = timeout
            if item is not None and started:
                left = timeout - (time.monotonic_ns() - started) / 1e9
            if left <= 0:
                self._kill("timeout", item)
            else:
                self._timer = asyncio.get_running_loop().call_later(max(0.01, left), look)

        self._timer = asyncio.get_running_loop().call_later(timeout, look)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
