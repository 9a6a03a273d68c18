"""Dispatchers share a queue without knowing of each other."""

from __future__ import annotations

import heapq
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.window import BACKOFF, HIGH, LOW, Window

quick = examples(60)


class Pool:
    """A shared queue in front of cores, and dispatchers that always have more to send."""

    def __init__(self, cores: int, random: Random) -> None:
        self.cores = cores
        self.random = random
        self.windows: dict[int, Window] = {}
        self.weights: dict[int, float] = {}
        self.queue: list[int] = []
        self.running: list[tuple[float, int, int]] = []  # When it ends, whose, pending then.
        self.now = 0.0
        self.served = Counter[int]()
        self.backlog = 0.0
        self.idle = 0.0

    def run(self, until: float) -> None:
        self.served.clear()
        self.backlog = self.idle = 0.0
        began = self.now
        while self.now < until:
            for name, window in self.windows.items():
                while window.has_room:
                    window.on_sent()
                    self.queue.append(name)
            while self.queue and len(self.running) < self.cores:
                name = self.queue.pop(0)
                end = self.now + self.random.uniform(0.04, 0.06)
                heapq.heappush(self.running, (end, name, len(self.queue)))
            end, name, pending = heapq.heappop(self.running)
            self.backlog += len(self.queue) * (end - self.now)
            self.idle += (self.cores - 1 - len(self.running)) * (end - self.now)
            self.now = end
            self.served[name] += 1
            if (window_of := self.windows.get(name)) is not None:
                window_of.steer(pending, self.cores, self.weights.get(name, 1.0))
                window_of.on_ended()
        self.backlog /= self.now - began
        self.idle /= (self.now - began) * self.cores


@pytest.mark.parametrize("cores", [1, 2, 8, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dispatchers", [1, 2, 5])
def test_windows_keep_the_queue_short_and_no_core_idle(cores: int, dispatchers: int) -> None:
    pool = Pool(cores, Random(1))
    pool.windows = {name: Window() for name in range(dispatchers)}
    pool.run(10)
    pool.run(30)

    # (Each dispatcher has a chunk in flight at least.)
    assert LOW * cores / 2 <= pool.backlog <= max(2 * HIGH * cores, dispatchers)
    assert pool.idle < 0.02


@pytest.mark.parametrize("cores", [2, 8, pytest.param(32, marks=pytest.mark.slow)])
def test_dispatchers_get_equal_shares_whoever_came_first(cores: int) -> None:
    pool = Pool(cores, Random(2))
    pool.windows = {0: Window()}
    pool.run(10)
    pool.windows[1] = Window()
    pool.run(20)
    pool.windows[2] = Window()
    pool.run(60)
    pool.run(160)

    mean = sum(pool.served.values()) / 3
    assert all(abs(served - mean) < 0.35 * mean for served in pool.served.values())


@pytest.mark.parametrize("cores", [2, 8, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("first", [0, 1])
def test_dispatchers_of_jobs_leave_others_their_share(cores: int, first: int) -> None:
    pool = Pool(cores, Random(4))
    pool.weights = {1: 0.25}
    pool.windows = {first: Window()}
    pool.run(10)
    pool.windows[1 - first] = Window()
    pool.run(60)
    pool.run(160)

    assert 0.1 < pool.served[1] / pool.served[0] < 0.45


def test_who_leaves_leaves_its_share_to_the_others() -> None:
    pool = Pool(8, Random(3))
    pool.windows = {0: Window(), 1: Window()}
    pool.run(10)
    del pool.windows[1]
    pool.run(20)
    pool.run(30)

    assert pool.served[1] == 0
    assert pool.idle < 0.02


@quick
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 64)), max_size=200))
def test_a_window_never_closes_and_is_bounded(steps: list[tuple[int, int]]) -> None:
    window = Window()
    for pending, cores in steps:
        while window.has_room:
            window.on_sent()
        window.steer(pending, cores)
        window.on_ended()
        assert 1 <= window.size <= 4 * max(1, cores) + 2
    while window.in_flight:
        window.on_ended()
    window.on_ended()
    assert window.has_room


def test_a_window_that_is_not_used_does_not_grow() -> None:
    window = Window(4)
    for _ in range(100):
        window.on_sent()
        window.steer(0, 8)
        window.on_ended()
    assert window.size == 4


@quick
@given(st.integers(0, 60), st.integers(1, 10))
def test_a_refusal_shrinks_what_is_out_but_never_to_nothing(out: int, refusals: int) -> None:
    window = Window(size=40.0)
    for _ in range(out):
        window.on_sent()
    for _ in range(refusals):
        before = window.size
        window.on_refused()
        assert 1.0 <= window.size <= max(1.0, before * BACKOFF)


def test_a_window_of_its_own_stays_as_it_is() -> None:
    window = Window()
    window.fix(3)
    assert not window.is_fresh
    for _ in range(6):
        assert window.has_room
        window.on_sent()
    for change in (window.on_refused, lambda: window.on_idle(5), lambda: window.steer(9, 3)):
        change()
        assert not window.has_room
    window.on_ended()
    assert window.has_room
