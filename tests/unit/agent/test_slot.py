"""A core's worker against a model of one: frames, kills and deaths in any order."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hypotheses import examples
from jetmap.agent.holdings import HeldChunk
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.agent.slot import Slot
from jetmap.agent.watchdogs import JAM_SECONDS
from jetmap.agent.worker_process import StartError
from jetmap.agent.worker_queue import SKIP_SECONDS
from jetmap.agent.worker_state import Death
from jetmap.settings import Settings
from jetmap.wire import frames
from jetmap.wire.messages import ChunkHead, Crash, Rest, encode
from jetmap.wire.worker_start import Ready, StartFailed
from jetmap.worker.progress import Progress
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
        self.progress = Progress.create()
        self.given: deque[HeldChunk] = deque()
        self.chunk: HeldChunk | None = None
        self.latest: HeldChunk | None = None
        self.number = 0
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

    def finish(self) -> None:
        self.progress.leave()
        self.on_the_way.append((frames.LAST, b""))
        self.chunk = None

    def die(self, signal: int | None, code: int | None, lost: int) -> None:
        """lost: frames that nobody reads any more. (Who has not said that it finished has not.)"""
        self.at_death = self.is_in
        for _ in range(min(lost, len(self.on_the_way))):
            kind, _ = self.on_the_way.pop()
            if kind == frames.LAST and self.at_death[0] is None:
                self.at_death = self.latest, None
        self.here.extend(self.on_the_way)
        self.on_the_way.clear()
        self.ended = True
        self.died.set_result(Death(signal, code, 1 << 20))
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

    def mark_output(self, mark: Any) -> None: ...

    def describe(self) -> str:
        return "[worker 1]"

    def close(self, mark: str = "") -> None:
        assert not self.lives and not self.closed
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
        self.worker: FakeWorker | None = None

    async def on_worker_ready(self, slot: Slot, ready: Ready) -> None: ...
    async def announce(self) -> None: ...
    async def flush(self) -> None: ...

    async def on_worker_failed(self, slot: Slot, failure: StartFailed) -> None:
        self.failures += 1

    async def on_core_freed(self, slot: Slot) -> None:
        self.idle += 1
        assert self.idle == 1 and slot.is_idle
        assert slot._worker is not None and not slot._worker.is_dead

    def on_core_lost(self, slot: Slot) -> None:
        self.idle -= 1
        assert self.idle == 0

    def on_recycled(self) -> None:
        self.renewed += 1

    async def on_report(self, held: HeldChunk, report: bytes, last: bool) -> None:
        assert not self.ends[id(held)], "it has ended"
        self.ends[id(held)] += last

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
        self.slot = Slot(
            0,
            None,
            options(**more),
            worker_setup(Settings()),
            self.account,
            self.account,
            self.start,  # type: ignore[arg-type]
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


@pytest.fixture
def bench() -> Any:
    made = Bench()
    yield made
    made.close()


class Serving(RuleBasedStateMachine):
    """Chunks are given, computed, withdrawn, overdue; workers crash, are killed, are replaced."""

    @initialize(recycle=st.sampled_from([None, 1, 3]))
    def begin(self, recycle: int | None) -> None:
        self.bench = Bench(recycle_chunks=recycle)
        self.replaced = False

    def living(self) -> list[FakeWorker]:
        return [worker for worker in self.bench.workers if worker.lives]

    # The worker

    @rule(data=st.data(), fails=st.booleans())
    def says_ready(self, data: st.DataObject, fails: bool) -> None:
        new = [worker for worker in self.living() if not worker.said_ready]
        if not new:
            return
        worker = data.draw(st.sampled_from(new))
        if fails:
            worker.said_ready = True
            failure = encode(StartFailed("ImportError", "no", ""))
            worker.on_the_way.append((frames.FAILED, failure))
            worker.die(None, 0, 0)
        else:
            worker.said_ready = True
            worker.on_the_way.append((frames.READY, encode(Ready([], "d", []))))

    @rule(overdue=st.booleans())
    def works(self, overdue: bool) -> None:
        """One step: to its next chunk, into its item, to its end."""
        for worker in self.living():
            if worker.chunk is None:
                if worker.given:
                    worker.come_to_next()
            elif worker.progress.item is None and not worker.progress.stopping:
                started = LONG_AGO if overdue else time.monotonic_ns()
                worker.progress.enter(0, started if worker.chunk.head.timeout else 0)
                if worker.chunk.head.count > 1 and worker.chunk.head.budget:
                    worker.progress.expect(started / 1e9, 0.0)
            else:
                worker.finish()

    @rule()
    def reports(self) -> None:
        for worker in self.living():
            if worker.chunk is not None:
                worker.on_the_way.append((frames.PART, b""))

    @rule(count=st.integers(1, 3))
    def arrives(self, count: int) -> None:
        for worker in self.bench.workers:
            for _ in range(min(count, len(worker.on_the_way))):
                worker.deliver()
        self.bench.settle()

    @rule(lost=st.integers(0, 2))
    def is_dead(self, lost: int) -> None:
        """A kill is done."""
        for worker in self.living():
            if worker.killed:
                worker.die(9, None, lost)
        self.bench.settle()

    @rule(lost=st.integers(0, 2))
    def crashes(self, lost: int) -> None:
        for worker in self.living():
            worker.die(None, 3, lost)
            break
        self.bench.settle()

    # The agent

    @precondition(lambda self: self.bench.slot.is_idle)
    @rule(
        count=st.integers(1, 4),
        limited=st.booleans(),
        items=st.integers(1, 3),
        budget=st.sampled_from([0.0, 0.01, 0.5]),
    )
    def is_given(self, count: int, limited: bool, items: int, budget: float) -> None:
        self.bench.assign(count, TIMEOUT if limited else None, items=items, budget=budget)

    @rule(data=st.data())
    def is_withdrawn(self, data: st.DataObject) -> None:
        there = [held for held in self.bench.chunks.values() if self.bench.slot._queue.find(held)]
        if there:
            held = data.draw(st.sampled_from(there))
            self.bench.do(lambda: self.bench.slot.stop(held, 0.5))

    @rule(seconds=st.sampled_from([0.01, JAM_SECONDS, 0.5, SKIP_SECONDS, TIMEOUT, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    @rule()
    def looks_at_its_age(self) -> None:
        self.bench.loop.create_task(self.bench.slot.recycle())
        self.bench.settle()

    @rule(refusals=st.integers(0, 2))
    def source_changes(self, refusals: int) -> None:
        self.bench.refusals = refusals
        self.bench.loop.create_task(self.bench.slot.replace())
        self.bench.settle()

    # What must hold

    @invariant()
    def idle_cores_are_what_they_seem(self) -> None:
        if hasattr(self, "bench"):
            assert self.bench.account.idle == self.bench.slot.is_idle

    @invariant()
    def only_the_guilty_are_blamed(self) -> None:
        if not hasattr(self, "bench"):
            return
        for held, crash in self.bench.account.crashes:
            if crash.item is None and crash.reason != "died":
                continue
            # Its worker died in it; and, of what was killed, was in it when it was killed.
            deaths = [w for w in self.bench.workers if w.at_death and w.at_death[0] is held]
            assert len(deaths) == 1
            worker = deaths[0]
            assert crash.item == worker.at_death[1]  # type: ignore[index]
            assert (crash.reason == "timeout") == worker.killed
            assert not worker.killed or worker.at_kill == worker.at_death
            assert crash.start_seconds == FakeWorker.start_seconds

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.bench.close()
            self.only_the_guilty_are_blamed()


TestServing = Serving.TestCase
TestServing.settings = examples(300, stateful_step_count=40)


def test_what_is_killed_when_it_had_finished_blames_nobody(bench: Bench) -> None:
    bench.get_ready()
    worker = bench.worker
    (late,) = bench.assign(1, TIMEOUT)
    worker.come_to_next()
    worker.progress.enter(0, LONG_AGO)
    bench.pass_time(TIMEOUT)
    assert worker.killed
    # It finishes in this very moment, and its end is read before its death is known.
    worker.finish()
    worker.deliver()
    bench.settle()
    assert bench.account.ends[id(late)] == 1
    assert not bench.slot.is_idle and not bench.account.idle, "nothing is given to the dying"
    worker.die(9, None, 0)
    bench.settle()
    assert not bench.account.crashes


def test_what_waits_behind_a_slow_chunk_is_handed_back(bench: Bench) -> None:
    bench.get_ready()
    worker = bench.worker
    slow, *others = bench.assign(4)
    worker.come_to_next()
    worker.progress.enter(0)
    bench.pass_time(2 * JAM_SECONDS)
    assert [bench.account.ends[id(held)] for held in others] == [1, 1, 1]
    assert bench.slot.held is slow and not bench.account.crashes
    assert not any(bench.slot._queue.find(held) for held in others)

    worker.finish()
    worker.deliver()
    bench.settle()
    assert not bench.slot.is_idle, "it has yet to pass over the others"
    for _ in others:
        worker.come_to_next()
        assert worker.chunk is None
        worker.deliver()
    bench.settle()
    assert bench.slot.is_idle
    (next_one,) = bench.assign(1)
    worker.come_to_next()
    assert worker.chunk is next_one
    worker.finish()
    worker.deliver()
    bench.settle()


def slow_chunk(bench: Bench, *, budget: float = 0.01) -> tuple[FakeWorker, HeldChunk]:
    """A worker that is in the second of four items when the chunk's budget is spent."""
    bench.get_ready()
    (held,) = bench.assign(1, items=4, budget=budget)
    worker = bench.worker
    worker.come_to_next()
    worker.progress.expect(0.000001, 0.0)
    worker.progress.enter(1)
    return worker, held


def test_items_behind_one_that_outruns_the_budget_are_given_back(bench: Bench) -> None:
    worker, held = slow_chunk(bench)
    assert not bench.account.rests and not worker.progress.stopping
    bench.pass_time(0.01)
    assert bench.account.rests == [(held, 2)] and worker.progress.stopping
    assert bench.slot.held is held, "the item in progress goes on"
    bench.pass_time(10)
    assert bench.account.rests == [(held, 2)], "once"
    worker.finish()
    worker.deliver()
    bench.settle()
    assert bench.account.ends[id(held)] == 1 and bench.slot.is_idle

    (after,) = bench.assign(1, items=4, budget=0.01)
    worker.come_to_next()
    assert not worker.progress.stopping, "that was meant for the chunk before"
    worker.finish()
    worker.deliver()
    bench.settle()
    assert bench.account.ends[id(after)] == 1


@pytest.mark.parametrize("case", ["early", "last", "done", "next", "withdrawn", "dead"])
def test_nothing_is_given_back_where_nothing_waits(bench: Bench, case: str) -> None:
    worker, held = slow_chunk(bench)
    if case == "early":
        worker.progress.expect(time.monotonic(), 1000.0)
    elif case == "last":
        worker.progress.enter(3)
    elif case == "done":
        worker.finish()
    elif case == "next":
        worker.number += 1
        worker.progress.begin(worker.number)
    elif case == "withdrawn":
        held.unwanted = True
    elif case == "dead":
        worker.die(9, None, 0)
    bench.pass_time(1)
    assert not bench.account.rests
    assert worker.closed or worker.progress.stopping == (case == "withdrawn")


def test_a_chunk_that_is_still_decoded_is_looked_at_again(bench: Bench) -> None:
    bench.get_ready()
    (held,) = bench.assign(1, items=4, budget=0.01)
    worker = bench.worker
    bench.pass_time(1)
    worker.come_to_next()
    bench.pass_time(1)
    assert not bench.account.rests
    worker.progress.expect(0.000001, 0.0)
    worker.progress.enter(0)
    bench.pass_time(1)
    assert bench.account.rests == [(held, 1)]


def test_what_has_begun_meanwhile_is_not_handed_back(bench: Bench) -> None:
    bench.get_ready()
    worker = bench.worker
    first, second, third = bench.assign(3)
    worker.come_to_next()
    worker.finish()
    worker.come_to_next()  # The first one's end is still in the pipe.
    bench.pass_time(JAM_SECONDS)
    bench.pass_time(JAM_SECONDS)
    assert [bench.account.ends[id(held)] for held in (first, second, third)] == [0, 0, 1]
    worker.finish()
    worker.come_to_next()
    while worker.on_the_way:
        worker.deliver()
    bench.settle()
    assert bench.slot.is_idle and not bench.account.crashes


def test_a_successor_that_cannot_start_costs_no_worker() -> None:
    bench = Bench(recycle_chunks=2)
    bench.get_ready()
    worker = bench.worker

    def chunk() -> None:
        bench.assign(1)
        worker.come_to_next()
        worker.finish()
        worker.deliver()
        bench.settle()

    chunk()
    assert len(bench.workers) == 1
    chunk()
    assert len(bench.workers) == 2, "it is started with the last of its chunks"
    bench.workers[1].die(None, 0, 0)
    chunk()
    assert bench.account.failures == 1 and not worker.killed
    chunk()
    assert len(bench.workers) == 2, "not again at once"
    bench.refusals = 1
    time_before = time.monotonic
    try:
        time.monotonic = lambda: time_before() + 100  # type: ignore[assignment]
        chunk()
        assert bench.account.failures == 2 and bench.slot.is_idle
        time.monotonic = lambda: time_before() + 200  # type: ignore[assignment]
        chunk()
    finally:
        time.monotonic = time_before
    assert len(bench.workers) == 3
    bench.get_ready(bench.workers[2])
    chunk()
    assert worker.killed, "there is a warm one now"
    bench.close()


def test_a_worker_that_the_system_cannot_start_is_told_of(bench: Bench) -> None:
    bench.get_ready()
    bench.refusals = 1
    bench.worker.die(None, 3, 0)
    bench.settle()
    assert bench.account.failures == 1 and bench.slot.status().state == "failed"
    bench.pass_time(1)
    bench.get_ready()
    assert bench.slot.is_idle


def test_a_garbled_frame_costs_the_worker(bench: Bench) -> None:
    bench.get_ready()
    worker = bench.worker
    (held,) = bench.assign(1)
    worker.come_to_next()
    worker.on_the_way.append((frames.READY, b"\xc1"))
    worker.deliver()
    bench.settle()
    assert worker.killed and not bench.slot.is_idle
    worker.die(9, None, 0)
    bench.settle()
    assert bench.account.ends[id(held)] == 1
    assert [crash.item for _, crash in bench.account.crashes] == [None]
    bench.get_ready()
    assert bench.slot.is_idle


def test_a_garbled_result_costs_the_worker_and_loses_no_chunk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.get_ready()
    worker = bench.worker
    (held,) = bench.assign(1)

    async def refuse(*_: Any) -> None:
        raise ValueError("not a report")

    monkeypatch.setattr(bench.account, "on_report", refuse)
    worker.come_to_next()
    worker.finish()
    worker.deliver()
    bench.settle()
    assert bench.account.ends[id(held)] == 1, "its items run elsewhere"
    assert worker.killed and not bench.slot.is_idle


@pytest.mark.parametrize("kind", [b"?", frames.READY, frames.FAILED, frames.WARMED])
def test_a_garbled_frame_of_any_kind_costs_only_the_worker(bench: Bench, kind: bytes) -> None:
    bench.get_ready()
    worker = bench.worker
    worker.on_the_way.append((kind, b"\xc1"))
    worker.deliver()
    bench.settle()
    assert worker.killed and not bench.account.idle
    worker.die(9, None, 0)
    bench.settle()
    bench.get_ready()
    assert bench.slot.is_idle


def test_a_source_that_changes_while_a_worker_starts_costs_that_start(bench: Bench) -> None:
    first = bench.worker
    bench.loop.run_until_complete(bench.slot.replace())
    bench.get_ready(first)
    assert first.killed and not bench.account.idle, "it may have loaded the source of before"
    first.die(9, None, 0)
    bench.settle()
    assert bench.worker is not first and not bench.account.failures
    bench.get_ready()
    assert bench.slot.is_idle
