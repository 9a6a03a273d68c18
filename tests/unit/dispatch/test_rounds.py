"""Longer chunks where they are well predicted, and what they must not cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf, log, sqrt
from random import Random
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.costs import SLACK, Cost, Cutting, Pace
from jetmap.dispatch.rounds import CHUNK_COST, STEADY, Deviation, Rounds, round_seconds
from simulation import Simulation

HOP = 0.0005
CUTTING = Cutting()


# How well chunks are predicted


def deviation_of(results: Sequence[tuple[int, float]]) -> Deviation:
    deviation = Deviation()
    for items, seconds in results:
        deviation.learn(items, seconds)
    return deviation


@given(st.lists(st.integers(1, 10_000), min_size=4, max_size=30), st.floats(1e-7, 10))
def test_items_that_cost_alike_deviate_by_nothing(counts: list[int], each: float) -> None:
    deviation = deviation_of([(count, count * each) for count in counts * 2])
    assert deviation.share == pytest.approx(0, abs=1e-6)


def test_too_few_results_say_nothing() -> None:
    assert deviation_of([(5, 0.1)] * 3).share == inf
    assert deviation_of([(5, 0.0)] * 9).share == 0
    assert deviation_of([(5, 1e-200)] * 9).share == 0


@given(
    # (No squares that are too small for a float.)
    st.lists(
        st.tuples(st.integers(1, 1000), st.just(0.0) | st.floats(1e-9, 10)),
        min_size=5,
        max_size=30,
    ),
    st.floats(1e-3, 1e3),
    st.integers(2, 100),
)
def test_a_deviation_is_a_share_whatever_the_scale(
    results: list[tuple[int, float]], slower: float, more: int
) -> None:
    share = deviation_of(results).share
    scaled = deviation_of([(more * items, slower * seconds) for items, seconds in results]).share
    assert share >= 0
    assert scaled == pytest.approx(share, rel=1e-3, abs=1e-3)


def test_a_deviation_is_that_of_the_chunks() -> None:
    random = Random(3)
    shares = []
    for _ in range(200):
        chunks = [(100, max(0.0, random.gauss(1.0, 0.2))) for _ in range(30)]
        shares.append(deviation_of(chunks).share)
    assert sum(shares) / len(shares) == pytest.approx(0.2, rel=0.1)


# How long chunks of one round are


@given(st.floats(1e-6, 100), st.floats(1, 4096), st.floats(0, 10))
def test_one_round_more_is_worth_its_chunks(rest: float, cores: float, deviation: float) -> None:
    first = round_seconds(rest, cores, deviation)
    spread = max(0.1, deviation) * sqrt(2 * log(max(2.0, cores)))
    assert rest / 2 <= first <= rest
    one = CHUNK_COST + spread * rest
    if first == rest:
        left = spread * rest / (1 + spread)
        assert one <= 2 * CHUNK_COST + spread * left + 1e-9
    else:
        # What is left for the cores that end a round in time covers what others are late.
        assert rest - first >= min(spread, 1.0) * first * 0.999
        assert one >= 2 * CHUNK_COST + spread * (rest - first) or spread > 1


@given(st.floats(1e-6, 100), st.floats(1, 4096), st.floats(0, 10), st.floats(1, 10))
def test_chunks_that_are_predicted_worse_are_not_longer(
    rest: float, cores: float, deviation: float, worse: float
) -> None:
    assert round_seconds(rest, cores, deviation * worse) <= round_seconds(rest, cores, deviation)


@given(
    st.integers(1, 50_000),
    st.floats(1e-6, 0.5),
    st.integers(2, 64),
    st.floats(0, STEADY),
    st.floats(0.02, 0.2),
)
@example(items=4, each=0.125, cores=2, deviation=0.0, longest=0.1875)  # 1.5 items a chunk.
def test_rounds_cover_the_list_and_each_has_a_chunk_a_core(
    items: int, each: float, cores: int, deviation: float, longest: float
) -> None:
    rounds, rest, cut = Rounds(), items, list[int]()
    while rest:
        count = rounds.count(
            rest, each, cores, deviation, longest=longest, shortest=min(longest, 0.002)
        )
        assert 1 <= count <= rest
        cut.append(count)
        rest -= count
    assert sum(cut) == items
    assert all((count - 0.5) * each <= longest * 1.000001 or count == 1 for count in cut)
    for start in range(0, len(cut) - cores, cores):  # The last round may be short.
        assert len(set(cut[start : start + cores])) == 1
    assert all(after <= before for before, after in pairwise(cut))
    # None is shorter than it may be, but the last one of all.
    assert all(count * each >= 0.002 * 0.7 or count == 1 for count in cut[:-1])


def test_a_round_ends_when_items_turn_out_otherwise() -> None:
    rounds = Rounds()
    cut = lambda each: rounds.count(1000, each, 4, 0.0, longest=0.05, shortest=0.002)  # noqa: E731
    assert [cut(0.001), cut(0.001)] == [50, 50]
    assert cut(0.005) == 10


# What a map takes for steady


def pace_of(results: Sequence[tuple[int, float]]) -> Pace:
    cost = Cost()
    for items, seconds in results:
        cost.learn(items, seconds, 0)
    return Pace(cost)


def test_a_map_is_steady_by_its_own_results_once_it_has_some() -> None:
    pace = pace_of([(10, 0.01)] * 8)
    assert pace.deviation == pytest.approx(0, abs=1e-6)
    for seconds in (0.01, 0.03) * 4:
        pace.learn(10, seconds)
    pace.is_sure = True
    assert pace.deviation is None
    for _ in range(40):
        pace.learn(10, 0.01)
    assert pace.deviation is not None


def test_a_map_with_a_late_chunk_is_steady_only_by_its_own_results() -> None:
    pace = pace_of([(10, 0.01)] * 8)
    pace.refute(2, 0.1)
    assert pace.deviation is None
    pace.is_sure = True
    for _ in range(3):
        pace.learn(10, 0.5)
        assert pace.deviation is None
    for _ in range(3):
        pace.learn(10, 0.5)
    assert pace.deviation == pytest.approx(0, abs=1e-6)
    pace.refute(2, 5.0)
    assert pace.deviation is None


@pytest.mark.parametrize("seconds", [[0.001, 0.02], [0.001] * 9 + [0.02]])
def test_a_function_of_uneven_items_is_not_steady(seconds: list[float]) -> None:
    assert pace_of([(1, each) for each in seconds * 4]).deviation is None
    assert pace_of([(1, 0.001)] * 3).deviation is None


# Maps on simulated cores, beside the usual rules

Speed = Callable[[int, float], float]


def as_ever(core: int, now: float) -> float:
    return 1.0


def taken(
    costs: Sequence[float],
    cores: int,
    *,
    prior: Sequence[float] = (),
    usual: bool = False,
    speed: Speed = as_ever,
) -> tuple[float, list[int]]:
    """Return the seconds and the chunks' items of a list, after others of its function.

    usual: whether its items are cut as if they were not steady.
    """
    with mock.patch("jetmap.dispatch.costs.STEADY", -1.0 if usual else STEADY):
        slow = False
        simulation = Simulation(
            cores,
            hop=HOP,
            overhead=CHUNK_COST,
            speed=lambda core, now: speed(core, now - began) if slow else 1.0,
        )
        began = 0.0
        for _ in range(2):
            simulation.open(list(prior or costs))
            simulation.run()
        slow, began = True, simulation.now
        counts: list[int] = []
        map = simulation.open(list(costs))
        with mock.patch.object(
            simulation.scheduler,
            "_count",
            lambda *args, count=simulation.scheduler._count, **more: (
                counts.append(count(*args, **more)) or counts[-1]
            ),
        ):
            simulation.run()
        assert map.is_complete
        return simulation.ended[map.id] - began, counts


@pytest.mark.parametrize(
    ("items", "each", "most"), [(20_000, 0.000015, 9), (2000, 0.0015, 65), (16, 0.0015, 2)]
)
def test_steady_lists_have_few_chunks(items: int, each: float, most: int) -> None:
    seconds, counts = taken([each] * items, 2)
    usual_seconds, usual = taken([each] * items, 2, usual=True)
    assert len(counts) <= most < len(usual)
    assert seconds < usual_seconds


@examples(60)
@given(st.integers(1, 3000), st.floats(-5, -1.5), st.sampled_from([2, 3, 4, 8, 16, 64]))
def test_a_steady_list_never_takes_longer(items: int, power: float, cores: int) -> None:
    costs = [10**power] * items
    seconds, counts = taken(costs, cores)
    usual_seconds, usual = taken(costs, cores, usual=True)
    assert len(counts) <= len(usual)
    # One item more on the core that ends last, at most.
    assert seconds <= usual_seconds + 10**power + 2 * CHUNK_COST


@examples(40)
@given(
    st.integers(1, 2000),
    st.floats(-4, -1.5),
    st.sampled_from([2, 4, 16]),
    st.sampled_from([0.01, 0.1, 10.0, 100.0]),
)
def test_a_function_that_changes_its_cost_is_cut_by_its_own_results(
    items: int, power: float, cores: int, factor: float
) -> None:
    costs = [10**power] * items
    prior = [10**power * factor] * 400
    seconds, _ = taken(costs, cores, prior=prior)
    usual, _ = taken(costs, cores, prior=prior, usual=True)
    assert seconds <= 1.1 * usual + CUTTING.seconds


@examples(40)
@given(
    st.integers(1, 3000),
    st.floats(-5, -2),
    st.sampled_from([2, 4, 16]),
    st.sampled_from([2.0, 5.0, 50.0]),
    st.floats(0, 0.3),
)
def test_a_core_that_becomes_slow_costs_two_chunks_at_most(
    items: int, power: float, cores: int, slower: float, at: float
) -> None:
    costs = [10**power] * items
    speed = lambda core, now: slower if core == 0 and now >= at else 1.0  # noqa: E731
    seconds, _ = taken(costs, cores, speed=speed)
    usual, _ = taken(costs, cores, speed=speed, usual=True)
    assert seconds <= 1.1 * usual + 2 * CUTTING.seconds


# Newcomers


@given(st.integers(1, 100_000))
def test_a_newcomer_waits_no_longer_than_on_two_cores(cores: int) -> None:
    cutting = CUTTING.fitted(cores, 0.0)
    usual = CUTTING.seconds / 3
    if cores >= 2 and cutting.seconds == CUTTING.seconds:
        assert cutting.longest / (cores + 1) <= usual * 1.000001
    assert cutting.seconds <= cutting.longest <= 2 * cutting.seconds


def test_long_chunks_are_for_maps_that_are_alone() -> None:
    cutting, pace = CUTTING.fitted(16, 0.0), pace_of([(50, 0.05)] * 8)
    count = lambda alone: cutting.round_count(Rounds(), pace, 100_000, 16, alone=alone)  # noqa: E731
    assert count(alone=True) == 50, "its first chunks are as long as ever"
    pace.learn(50, 0.05)
    pace.is_sure = True
    assert count(alone=True) == 100
    assert count(alone=False) == 50


@pytest.mark.parametrize("cores", [2, 16])
def test_a_chunk_that_is_right_is_not_given_back(cores: int) -> None:
    cutting = CUTTING.fitted(cores, 0.0)
    for is_sure in (False, True):
        budget = cutting.budget(cutting.longest, 100, is_sure=is_sure)
        assert not any(
            budget.is_spent(item, 1.5 * cutting.longest * item / 100) for item in range(100)
        )


def test_lists_of_uneven_items_are_bounded_as_ever() -> None:
    random = Random(7)
    for _ in range(20):
        costs = [0.006 * random.lognormvariate(-0.5, 1.0) for _ in range(400)]
        seconds, _ = taken(costs, 2)
        assert seconds <= 1.1 * sum(costs) / 2 + max(costs) + SLACK * CUTTING.seconds
