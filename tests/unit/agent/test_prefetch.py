"""Cores far from the broker that ask ahead: any order of events, and what they may keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.agent.prefetch import AHEAD, FAR_SECONDS, SAMPLES, Prefetch
from jetmap.agent.pulls import EXPRESS_RUN

FAR = 0.04


def far(round_trip: float = FAR) -> Prefetch[int, str]:
    prefetch: Prefetch[int, str] = Prefetch()
    prefetch.on_measured(round_trip)
    return prefetch


def test_near_the_broker_nobody_asks_ahead() -> None:
    assert far(FAR_SECONDS / 2).round_trip == 0.0


def test_the_shortest_of_the_latest_measurements_counts() -> None:
    prefetch = far(0.001)
    prefetch.on_measured(0.5)
    assert prefetch.round_trip == 0.0
    for _ in range(SAMPLES):
        prefetch.on_measured(0.0204)
    assert prefetch.round_trip == 0.02


def test_a_core_asks_before_its_chunk_is_expected_to_end() -> None:
    prefetch = far()
    assert prefetch.delay([("f", 10)]) is None, "nobody knows how long it takes"
    prefetch.on_computed("f", 10, 1.0)
    assert prefetch.delay([("f", 10)]) == pytest.approx(1.0 - AHEAD * FAR)
    assert prefetch.delay([("f", 5), ("f", 5)]) == pytest.approx(1.0 - AHEAD * FAR)
    assert prefetch.delay([("f", 10), ("g", 1)]) is None
    prefetch.on_computed("g", 1000, 0.001)
    assert prefetch.delay([("g", 10)]) == 0.0


class Cores:
    """Cores, their chunks, and the pulls that are out, as `Pulls` counts them."""

    def __init__(self, cores: int) -> None:
        self.prefetch = far()
        self.busy = set(range(cores))
        self.idle: list[int] = []
        self.pulls = 0
        self.waiting: list[str] = []

    def end(self, core: int) -> None:
        self.busy.remove(core)
        taken, is_to_pull = self.prefetch.on_freed(core)
        self.pulls += is_to_pull
        if taken is None:
            self.idle.append(core)
        else:
            self.waiting.remove(taken)
            self.busy.add(core)

    def ask(self, core: int) -> None:
        self.pulls += self.prefetch.ask(core)

    def deliver(self, chunk: str) -> None:
        self.pulls -= 1
        if self.idle:
            self.busy.add(self.idle.pop())
        else:
            assert self.prefetch.is_ahead, "a chunk came that no core will take"
            self.prefetch.wait(chunk)
            self.waiting.append(chunk)

    def give_back(self, chunk: str) -> None:
        assert self.prefetch.give_back(chunk) is (chunk in self.waiting)
        if chunk in self.waiting:
            self.waiting.remove(chunk)


@examples(300)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=80))
def test_each_idle_core_has_one_pull_out_and_no_core_has_two(
    count: int, steps: list[tuple[int, int]]
) -> None:
    cores = Cores(count)
    for number, (what, which) in enumerate(steps):
        if what == 0 and cores.busy:
            cores.end(sorted(cores.busy)[which % len(cores.busy)])
        elif what == 1 and cores.busy:
            cores.ask(sorted(cores.busy)[which % len(cores.busy)])
        elif what == 2 and cores.pulls:
            cores.deliver(f"chunk {number}")
        elif what == 3:
            cores.give_back(cores.waiting[0] if cores.waiting else "another")
        ahead = len(cores.prefetch.ahead)
        assert cores.pulls == len(cores.idle) + ahead - len(cores.waiting)
        assert len(cores.waiting) <= ahead <= count, "at most one chunk for each core"
        assert not (cores.idle and cores.waiting), "a core idles beside a chunk that waits here"


def test_an_agent_that_takes_no_more_keeps_nothing() -> None:
    prefetch = far()
    assert prefetch.ask(1) and not prefetch.ask(1)
    prefetch.wait("chunk")
    assert prefetch.clear() == ["chunk"] and not prefetch.ahead


def test_what_is_to_go_first_does() -> None:
    prefetch: Prefetch[int, str] = Prefetch(is_standing=True)
    assert prefetch.is_ahead, "nobody has to ask"
    prefetch.wait("a")
    prefetch.wait("b")
    prefetch.wait("short", first=True)
    prefetch.wait("shorter", first=True)
    assert [prefetch.take() for _ in range(5)] == ["short", "shorter", "a", "b", None]


def test_a_run_of_what_goes_first_leaves_the_others_a_share() -> None:
    prefetch: Prefetch[int, str] = Prefetch(is_standing=True)
    for number in range(20):
        prefetch.wait(f"short {number}", first=True)
    prefetch.wait("long")
    prefetch.wait("longer")
    taken = [prefetch.take() for _ in range(22)]
    assert taken.index("long") == EXPRESS_RUN and taken.index("longer") == 2 * EXPRESS_RUN + 1
    assert [each for each in taken if each and "short" in each] == [f"short {n}" for n in range(20)]


def test_what_nobody_wants_is_dropped() -> None:
    prefetch: Prefetch[int, str] = Prefetch(is_standing=True)
    for chunk in ("a", "b"):
        prefetch.wait(chunk)
        prefetch.wait(f"short {chunk}", first=True)
    prefetch.drop(lambda chunk: chunk.endswith("a"))
    assert prefetch.waiting == ["short b", "b"]
