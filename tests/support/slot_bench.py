"""A slot of an agent with a worker that a test plays, frame by frame."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from jetmap.agent.holdings import HeldChunk
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.agent.slot import Slot
from jetmap.agent.worker_process import StartError
from jetmap.agent.worker_state import Death
from jetmap.settings import Settings
from jetmap.wire import frames
from jetmap.wire.messages import ChunkHead, Crash, Rest, encode
from jetmap.wire.worker_start import Broken, Loaded, Ready, StartFailed
from jetmap.worker.progress import ProgressPages
from waiting import turns

TIMEOUT = 5.0  # Seconds of an item; one begun when the machine started is over it.
LONG_AGO = 1


class FakeWorker:
    """Both sides of a worker: what the slot sees, and what the process and its pipe do.

    at_kill: chunk and item that it was in when it was first killed; at_death: when it died.
    """

    pid = 1
    start_seconds = 0.25

    def __init__(self) -> None:
        self.progress = ProgressPages.create()
        self.given: deque[HeldChunk] = deque()
        self.chunk: HeldChunk | None = None
        self.latest: HeldChunk | None = None
        self.number = 0
        self.mark: Callable[[], str] = self.describe
        self.on_the_way: deque[tuple[bytes, bytes]] = deque()
        self.here: deque[tuple[bytes, bytes]] = deque()
        self.news = asyncio.Event()
        self.killed = self.ended = self.closed = self.said_ready = False
        self.at_kill: tuple[HeldChunk | None, int | None] | None = None
        self.at_death: tuple[HeldChunk | None, int | None] | None = None
        self.died = asyncio.get_running_loop().create_future()
        self.chunks: dict[bytes, HeldChunk] = {}

    # What the process does

    @property
    def lives(self) -> bool:
        return not self.died.done()

    @property
    def is_in(self) -> tuple[HeldChunk | None, int | None]:
        return self.chunk, self.progress.item

    def come_to_next(self) -> None:
        self.number += 1
        held = self.given.popleft()
        if self.progress.begin(self.number):
            self.chunk = self.latest = held
        else:
            self.on_the_way.append((frames.SKIPPED, b""))

    def finish(self, *, past: bool = False) -> None:
        """End the chunk. past: its last report has gone past the agent."""
        self.progress.leave()
        self.on_the_way.append((frames.ENDED if past else frames.LAST, b""))
        self.chunk = None

    def die(self, signal: int | None, code: int | None, lost: int) -> None:
        """lost: frames that nobody reads any more. (Who has not said that it finished has not.)"""
        self.at_death = self.is_in
        for _ in range(min(lost, len(self.on_the_way))):
            kind, _ = self.on_the_way.pop()
            if kind in (frames.LAST, frames.ENDED) and self.at_death[0] is None:
                self.at_death = self.latest, None
        self.close_pipe()
        self.died.set_result(Death(signal, code, 1 << 20))

    def close_pipe(self) -> None:
        self.here.extend(self.on_the_way)
        self.on_the_way.clear()
        self.ended = True
        self.news.set()

    def deliver(self) -> None:
        self.here.append(self.on_the_way.popleft())
        self.news.set()

    # What the slot sees

    @property
    def has_answered(self) -> bool:
        return bool(self.here) or self.ended

    @property
    def is_warm(self) -> bool:
        return bool(self.here) and self.here[0][0] == frames.READY and self.lives

    @property
    def has_failed(self) -> bool:
        return self.has_answered and not self.is_warm

    @property
    def is_dead(self) -> bool:
        return not self.lives

    def send_chunk(self, data: bytes) -> None:
        if self.lives:
            self.given.append(self.chunks[data])

    async def receive(self) -> tuple[bytes, bytes] | None:
        while not self.here:
            if self.ended:
                return None
            self.news.clear()
            await self.news.wait()
        return self.here.popleft()

    async def death(self) -> Death:
        return await asyncio.shield(self.died)

    end_behind_pipe = death

    async def failure(self) -> StartFailed:
        await self.death()
        return StartFailed("X", "it failed", "")

    async def gone(self) -> None:
        await self.death()

    async def end(self) -> None:
        self.kill()
        await self.gone()
        self.close()

    def kill(self) -> None:
        if self.lives and not self.killed:
            self.killed, self.at_kill = True, self.is_in

    dismiss = kill

    def mark_output(self, mark: Callable[[], str]) -> None:
        self.mark = mark

    def describe(self) -> str:
        return "[worker 1]"

    def close(self, mark: str = "") -> None:
        assert not self.lives and not self.closed
        assert self.mark() == (mark or self.describe()), "what another thread reads just now"
        self.closed = True
        self.progress.close()

    def memory(self) -> int:
        return 0


class Account:
    """The agent: the reports on each chunk, and the idle cores it counts."""

    def __init__(self) -> None:
        self.idle = 0
        self.ends: Counter[int] = Counter()
        self.crashes: list[tuple[HeldChunk, Crash]] = []
        self.rests: list[tuple[HeldChunk, int]] = []
        self.renewed = 0
        self.failures = 0
        self.broken: list[Broken] = []
        self.worker: FakeWorker | None = None

    async def on_worker_ready(self, slot: Slot, ready: Ready) -> None: ...
    async def announce(self) -> None: ...
    async def flush(self) -> None: ...

    async def on_worker_failed(self, slot: Slot, failure: StartFailed) -> None:
        self.failures += 1

    async def on_load_failed(self, broken: Broken) -> None:
        self.broken.append(broken)

    async def on_import_failed(self, broken: Broken, *, fatal: bool) -> None:
        self.broken.append(broken)

    async def on_loaded(self, loaded: Loaded) -> None: ...
    async def on_stale(self) -> None: ...

    async def on_core_freed(self, slot: Slot) -> None:
        self.idle += 1
        assert self.idle == 1 and slot.is_idle
        assert slot._worker is not None and not slot._worker.is_dead

    def on_core_lost(self, slot: Slot) -> None:
        self.idle -= 1
        assert self.idle == 0

    def on_recycled(self) -> None:
        self.renewed += 1

    async def on_report(
        self, held: HeldChunk, report: bytes, last: bool, values: bytes = b""
    ) -> None:
        assert not self.ends[id(held)], "it has ended"
        self.ends[id(held)] += last

    async def on_delivered_past(self, held: HeldChunk) -> None:
        await self.on_report(held, b"", True)

    async def on_rest(self, held: HeldChunk, rest: Rest) -> None:
        assert not self.ends[id(held)], "it has ended"
        assert held.head.start < rest.start < held.head.start + held.head.count
        self.rests.append((held, rest.start))

    async def on_chunk_ended(self, held: HeldChunk, crash: Crash | None) -> None:
        assert not self.ends[id(held)], "it has ended"
        self.ends[id(held)] += 1
        if crash is not None:
            self.crashes.append((held, crash))


def options(**more: Any) -> AgentOptions:
    return AgentOptions(
        Settings(pool="p", **more), setup=worker_setup(Settings()), sys_path=(), cwd="/"
    )


class Bench:
    """A slot, its fake workers, and a clock that is moved by hand."""

    def __init__(self, **more: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.loop.time = lambda: self.now  # type: ignore[method-assign]
        self.faults: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.account = Account()
        self.workers: list[FakeWorker] = []
        self.chunks: dict[bytes, HeldChunk] = {}
        self.refusals = 0
        self.spares: list[Any] = []
        self.slot = Slot(
            0,
            None,
            options(**more),
            worker_setup(Settings()),
            self.account,
            self.account,
            self.start,  # type: ignore[arg-type]
            take_spare=lambda cpu: self.spares.pop() if self.spares else None,
        )
        self.running = self.loop.create_task(self.slot.run())
        self.settle()

    async def start(self, *_: Any) -> FakeWorker:
        if self.refusals:
            self.refusals -= 1
            raise StartError(FileNotFoundError("the directory is gone"))
        worker = FakeWorker()
        worker.chunks = self.chunks
        self.workers.append(worker)
        return worker

    @property
    def worker(self) -> FakeWorker:
        worker: Any = self.slot._worker
        return worker

    def settle(self) -> None:
        self.loop.run_until_complete(turns(20))
        assert not self.faults, self.faults

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def get_ready(self, worker: FakeWorker | None = None) -> None:
        worker = worker or self.worker
        worker.said_ready = True
        worker.on_the_way.append((frames.READY, encode(Ready([], "d", []))))
        worker.deliver()
        self.settle()

    def assign(
        self, count: int, timeout: float | None = None, *, items: int = 1, budget: float = 0.0
    ) -> list[HeldChunk]:
        """Chunks whose items have the same indices in all of them."""
        chunks = []
        for _ in range(count):
            number = len(self.chunks)
            head = ChunkHead(f"m{number}", 1, 1, "f", "json", 0, items, "inbox", timeout, budget)
            held = HeldChunk(head, [], str(number).encode(), 0, 0, sink=None)  # type: ignore[arg-type]
            self.chunks[held.data] = held
            chunks.append(held)
        self.account.idle -= 1
        # (A loop must be running where timers are made.)
        self.do(lambda: self.slot.assign(chunks))
        return chunks

    def do(self, call: Any) -> None:
        async def within() -> None:
            call()

        self.loop.run_until_complete(within())
        self.settle()

    def close(self) -> None:
        """Everything ends; each chunk must have had one end."""
        self.do(self.slot.close)
        for _ in range(10):
            for worker in self.workers:
                if worker.killed and worker.lives:
                    worker.die(9, None, 0)
            self.pass_time(60)
        assert self.running.done() and not self.running.exception()
        assert all(worker.closed for worker in self.workers)
        assert {self.account.ends[id(held)] for held in self.chunks.values()} <= {1}
        self.loop.close()
