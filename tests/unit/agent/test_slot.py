"""A core's worker against a model of one: frames, kills and deaths in any order."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hypotheses import examples
from jetmap.agent.holdings import HeldChunk
from jetmap.agent.neighbours import Values
from jetmap.agent.watchdogs import JAM_SECONDS
from jetmap.agent.worker_queue import SKIP_SECONDS
from jetmap.wire import frames
from jetmap.wire.messages import Hurry, Region, ValuesPlace, encode
from jetmap.wire.worker_start import Importing, Ready, StartFailed
from slot_bench import LONG_AGO, TIMEOUT, Bench, FakeWorker


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

    @rule(overdue=st.booleans(), past=st.booleans())
    def works(self, overdue: bool, past: bool) -> None:
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
                worker.finish(past=past)

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


def test_a_worker_whose_pipe_closes_is_given_the_time_to_say_how_it_ended(bench: Bench) -> None:
    bench.get_ready()
    worker = bench.worker
    (held,) = bench.assign(1)
    worker.come_to_next()
    worker.progress.enter(0)
    worker.close_pipe()
    bench.settle()
    assert not worker.killed and not bench.account.crashes
    assert not bench.slot.is_idle and not bench.account.idle, "nothing is given to the dying"
    worker.die(None, 7, 0)
    bench.settle()
    ((lost, crash),) = bench.account.crashes
    assert lost is held and (crash.item, crash.signal, crash.exit_code) == (0, None, 7)


def test_an_idle_worker_that_closes_its_pipe_is_given_nothing(bench: Bench) -> None:
    bench.get_ready()
    worker = bench.worker
    assert bench.account.idle == 1
    worker.close_pipe()
    bench.settle()
    assert not worker.killed and not bench.slot.is_idle and not bench.account.idle
    worker.die(None, 0, 0)
    bench.settle()
    assert bench.worker is not worker and not bench.account.crashes


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


def test_memory_with_values_whose_report_never_came_is_not_lent_any_more(bench: Bench) -> None:
    bench.get_ready()
    segment: Any = SimpleNamespace(erase=lambda offset: None, close=lambda: None)
    values = Values(1, segment)
    worker: Any = bench.worker
    bench.slot._neighbours._workers[worker] = values
    worker.on_the_way.append((frames.REGION, encode(ValuesPlace(1, Region(4096, 5, 1)))))
    worker.deliver()
    bench.settle()
    assert values.lent == 1
    worker.die(9, None, 0)
    bench.settle()
    assert values.lent == 0 and values.is_closed


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
    assert bench.account.failures == 1 and bench.slot.state == ("failed", None)
    bench.pass_time(1)
    bench.get_ready()
    assert bench.slot.is_idle


def test_a_garbled_frame_costs_the_worker(bench: Bench) -> None:
    bench.get_ready()
    worker = bench.worker
    (held,) = bench.assign(1)
    worker.come_to_next()
    worker.progress.enter(0)
    worker.on_the_way.append((frames.READY, b"\xc1"))
    worker.deliver()
    bench.settle()
    assert worker.killed and not bench.slot.is_idle
    worker.die(9, None, 0)
    bench.settle()
    assert bench.account.ends[id(held)] == 1
    [crash] = [crash for _, crash in bench.account.crashes]
    assert (crash.item, crash.reason) == (0, "died"), "it may not do so for ever"
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


def send(bench: Bench, kind: bytes, message: Any) -> None:
    bench.worker.on_the_way.append((kind, encode(message)))
    bench.worker.deliver()
    bench.settle()


def test_a_spare_takes_the_place_of_a_worker_that_died(bench: Bench) -> None:
    bench.get_ready()
    spare = bench.loop.run_until_complete(bench.start())
    bench.spares.append(spare)
    bench.worker.die(9, None, 0)
    bench.settle()
    assert bench.worker is spare and len(bench.workers) == 2
    bench.get_ready()
    assert bench.slot.is_idle and bench.account.idle == 1


def test_a_successor_ends_long_chunks_early_too(bench: Bench) -> None:
    """A chunk that waited at the broker goes to whichever worker comes free."""
    bench.get_ready()
    bench.slot.hurry(Hurry("m0", 1, 0.05))
    bench.worker.die(9, None, 0)
    bench.settle()
    bench.get_ready()
    bench.assign(1, items=100, budget=0.25)
    bench.worker.come_to_next()
    bench.pass_time(0.04)
    assert not bench.worker.progress.stopping
    bench.pass_time(0.02)
    assert bench.worker.progress.stopping
    bench.worker.finish()
    bench.worker.deliver()
    bench.settle()


def test_a_worker_that_loads_takes_no_chunk_and_its_loader_is_named(bench: Bench) -> None:
    send(bench, frames.EARLY, Ready([], "d", []))
    send(bench, frames.IMPORTING, Importing("m:f()", "", "m.load", 5.0))
    assert bench.slot.loader == "m.load" and not bench.slot.is_ready
    bench.worker.die(11, None, 0)
    bench.settle()
    (broken,) = bench.account.broken
    assert (broken.home, broken.loader) == ("m:f()", "m.load") and "SIGSEGV" in broken.text
    assert not bench.account.failures and bench.slot.state == ("failed", None)


def test_a_caller_that_leaves_does_not_end_a_loader(bench: Bench) -> None:
    bench.get_ready()
    (held,) = bench.assign(1)
    send(bench, frames.IMPORTING, Importing("m:f()", "", "m.load", 5.0))
    bench.do(lambda: bench.slot.stop(held, 0.5))
    bench.pass_time(1.0)
    assert not bench.worker.killed
    send(bench, frames.IMPORTING, Importing())
    bench.worker.come_to_next()
    bench.worker.finish()
    bench.worker.deliver()
    bench.settle()
    assert bench.slot.is_idle, "it passes over the items"
