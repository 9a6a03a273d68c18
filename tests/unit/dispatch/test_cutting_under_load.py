"""Maps beside each other, streams, and cores that come while maps run; on simulated cores."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.costs import FIRST_SECONDS, SLACK, Cutting
from simulation import Simulation

CUTTING = Cutting()
HOP = 0.0005


def known(cores: int, each: float) -> Simulation:
    """Simulate cores beside a dispatcher that knows what an item of ``f`` takes."""
    simulation = Simulation(cores, hop=HOP)
    for _ in range(20):
        simulation.scheduler.cost("f").learn(10, 10 * each, 10)
    return simulation


# Cores that come later


def test_cores_that_idle_without_work_for_them_open_nothing() -> None:
    simulation = known(2, 60.0)
    simulation.open([60.0] * 100)
    size = simulation.scheduler.window.size
    simulation.scheduler.on_idle(50, lambda map: False)
    assert simulation.scheduler.window.size == size


# Load


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_short_maps_are_not_cut_for_all_cores_if_there_are_as_many_maps_as_cores(
    cores: int,
) -> None:
    simulation = known(cores, 0.0015)
    for _ in range(8 * cores):
        simulation.open([0.0015] * 16)
    simulation.run()
    # The first ones are cut for those that are open already.
    assert simulation.chunks <= 9 * cores + 16 * cores


def test_a_map_alone_is_cut_for_all_cores() -> None:
    simulation = known(8, 0.002)
    simulation.open([0.002] * 16)
    assert simulation.run() <= 2 * 0.002 + 4 * HOP
    assert simulation.chunks >= 8


@examples(100)
@given(
    st.integers(1, 16),
    st.lists(
        st.tuples(st.integers(1, 400), st.floats(-5, -1), st.floats(0, 0.3)), min_size=1, max_size=8
    ),
    st.integers(0, 2**32),
)
def test_maps_beside_each_other_leave_no_core_idle_for_long(
    cores: int, maps: list[tuple[int, float, float]], seed: int
) -> None:
    random = Random(seed)
    simulation = known(cores, 0.001)
    work, longest = 0.0, 0.0
    for items, power, at in maps:
        costs = [10**power * random.uniform(0.2, 2) for _ in range(items)]
        work, longest = work + sum(costs), max(longest, *costs)
        simulation.at(at, lambda costs=costs: simulation.open(costs))  # type: ignore[misc]
    last = max(at for _, _, at in maps)
    end = simulation.run()
    assert sorted(simulation.ended) == [str(number) for number in range(len(maps))]
    assert end <= last + 1.1 * work / cores + longest + SLACK * CUTTING.seconds


# Streams


@pytest.mark.parametrize("cores", [1, 2, 32])
@pytest.mark.parametrize("each", [2e-5, 4e-4, 4e-3])
def test_a_streams_first_results_come_within_ten_milliseconds(cores: int, each: float) -> None:
    items = min(10_000, round(cores / each))
    times = {}
    for early in (False, True):
        simulation = known(cores, each)
        map = simulation.open([each] * items, early=early)
        times[early] = simulation.run()
        if early:
            assert simulation.first[map.id] <= 0.01
    assert times[True] <= 1.005 * times[False] + FIRST_SECONDS


def test_a_stream_begins_with_its_first_item() -> None:
    simulation = known(2, 0.001)
    map = simulation.open([0.001] * 1000, early=True)
    simulation.run()
    assert simulation.computed[map.id][0] == 0
