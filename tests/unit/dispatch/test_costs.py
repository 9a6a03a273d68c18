"""The length of chunks, and the known cost of an item."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.costs import Cost, Cutting
from jetmap.dispatch.sources import RawItems

quick = examples(60)

cuttings = st.builds(
    Cutting,
    seconds=st.floats(0.01, 1),
    least=st.floats(0.0001, 0.01),
    max_bytes=st.integers(10, 1 << 18),
)
results = st.tuples(st.integers(1, 1000), st.floats(0, 10), st.integers(0, 10_000))
learnt = st.lists(results, min_size=1, max_size=10)


def cost_of(results: list[tuple[int, float, int]]) -> Cost:
    cost = Cost()
    for items, seconds, size in results:
        cost.learn(items, seconds, size)
    return cost


@quick
@given(learnt)
def test_a_cost_is_between_the_cheapest_and_the_dearest(
    results: list[tuple[int, float, int]],
) -> None:
    cost = cost_of(results)
    rates = [seconds / items for items, seconds, _ in results]
    sizes = [size / items for items, _, size in results]

    assert min(rates) <= cost.seconds * 1.000001 + 1e-12
    assert cost.seconds <= max(rates) * 1.000001
    assert min(sizes) <= cost.bytes * 1.000001 + 1e-12
    assert cost.bytes <= max(sizes) * 1.000001


@given(learnt, st.integers(1, 50), st.floats(0.001, 1))
@quick
def test_a_cost_follows_what_changes(
    earlier: list[tuple[int, float, int]], items: int, each: float
) -> None:
    cost = cost_of(earlier)
    for _ in range(300):
        cost.learn(items, items * each, 0)
    assert cost.seconds == pytest.approx(each, rel=0.01)


def test_nothing_is_known_at_first() -> None:
    cost = Cost()
    cost.learn(0, 1.0, 100)
    assert not cost.is_known
    assert cost.seconds == cost.bytes == 0
    assert Cutting().count(cost, 1000, 4) == 1
    cost.cut(10, 1000)
    assert cost.bytes == 100 and not cost.is_known


@quick
@given(cuttings, learnt, st.none() | st.integers(1, 10**7), st.integers(0, 256))
def test_a_chunk_is_within_its_bounds(
    cutting: Cutting, results: list[tuple[int, float, int]], remaining: int | None, cores: int
) -> None:
    cost = cost_of(results)
    count = cutting.count(cost, remaining, cores)

    assert count >= 1
    assert remaining is None or count <= remaining
    if count > 1:
        assert count * cost.bytes <= cutting.max_bytes * 1.000001
        # Rounded to whole items.
        assert (count - 0.5) * cost.seconds <= max(cutting.seconds, cutting.least) * 1.000001
        assert count <= cutting.seconds / 1e-7 + 1


@quick
@given(st.integers(1, 20_000), st.integers(2, 64), st.floats(1e-5, 0.2))
def test_chunks_taper_and_cover_the_list(total: int, cores: int, each: float) -> None:
    cutting, cost = Cutting(), Cost()
    cost.learn(10, 10 * each, 0)
    remaining, durations = total, list[float]()
    while remaining:
        count = cutting.count(cost, remaining, cores)
        remaining -= count
        durations.append(count * each)

    assert sum(durations) == pytest.approx(total * each)
    # None is longer than the one before, but for the last that takes what is left.
    assert all(after <= before + each for before, after in pairwise(durations))
    # When the list ends, no core has more than a little left to do.
    assert durations[-1] <= max(cutting.least, each) + each
    # And tapering does not cut to shreds.
    # (from 50 to 2 ms by 1/2n of the rest each time, then the rest at 2 ms; rounded to items).
    full = total * each / cutting.seconds
    assert len(durations) <= 1.5 * (full + 9 * cores) + 2


@quick
@given(st.integers(1, 20_000), st.floats(0.01, 1), st.floats(1e-5, 0.2))
def test_chunks_for_a_share_of_one_core_do_not_taper(total: int, share: float, each: float) -> None:
    cutting, cost = Cutting(), Cost()
    cost.learn(10, 10 * each, 0)
    count = cutting.count(cost, total, share)
    assert count == min(total, cutting.max_items, max(1, round(cutting.seconds / each)))


@quick
@given(
    st.lists(st.binary(min_size=1, max_size=60), max_size=60),
    st.integers(2, 200),
    st.integers(1, 30),
)
def test_raw_items_are_cut_by_bytes(items: list[bytes], max_bytes: int, count: int) -> None:
    source = RawItems([msgspec.msgpack.encode(item) for item in items], "msgpack")
    seen: list[bytes] = []
    while (taken := source.take(count, max_bytes)) is not None:
        assert 1 <= taken.count <= count
        assert taken.count == 1 or len(taken.items) <= max_bytes
        seen += msgspec.msgpack.decode(taken.items)
        assert source.remaining == len(items) - len(seen)
    assert seen == items
    assert not source.has_items


@quick
@given(cuttings, st.floats(0, 10), st.integers(1, 1000))
def test_a_worker_may_take_about_twice_what_was_estimated(
    cutting: Cutting, estimate: float, items: int
) -> None:
    budget = cutting.budget(estimate, items, is_sure=True)
    assert budget.until(items) == budget.until(1) == budget.seconds <= 2 * cutting.seconds
    assert budget.seconds >= min(2 * estimate, 2 * cutting.seconds)
    assert budget.seconds >= min(cutting.least, cutting.seconds)


@quick
@given(cuttings, st.floats(0, 10), st.integers(1, 1000))
def test_a_guess_is_checked_from_the_first_item_on(
    cutting: Cutting, estimate: float, items: int
) -> None:
    budget = cutting.budget(estimate, items, is_sure=False)
    whole = min(estimate, cutting.seconds)
    assert budget.until(0) == pytest.approx(5 * cutting.least)
    assert budget.until(items) == pytest.approx(5 * cutting.least + 2 * whole)
    # A chunk that takes twice what was thought is within its budget all the way.
    assert all(
        not budget.is_spent(item, 2 * whole * item / items)
        for item in range(0, items, 1 + items // 9)
    )


@pytest.mark.parametrize(
    ("rates", "steady"),
    [
        ([0.0015] * 3, False),  # Too few results to tell.
        ([0.0015] * 6, True),
        ([0.0012, 0.0018, 0.0014, 0.0016, 0.0015, 0.002], True),
        ([0.001] * 9 + [0.02], False),
        ([0.02] + [0.001] * 60, True),  # The dear result is long past.
        ([0.0] * 10, True),
    ],
)
def test_items_are_steady_if_the_latest_results_cost_alike(
    rates: list[float], steady: bool
) -> None:
    cost = cost_of([(5, 5 * rate, 1) for rate in rates])
    assert cost.is_steady is steady


@quick
@given(
    learnt,
    st.none() | st.integers(1, 10**5),
    st.integers(1, 64),
    st.integers(2, 300),
)
def test_chunks_are_whole_batches(
    results: list[tuple[int, float, int]], remaining: int | None, cores: int, batch: int
) -> None:
    cutting, cost = Cutting(), cost_of(results)
    count = cutting.count(cost, remaining, cores, batch)
    most = cutting.max_bytes / cost.bytes if cost.bytes else cutting.max_items
    assert 1 <= count <= cutting.max_items and count <= max(1, most)
    assert remaining is None or count <= remaining
    is_short = remaining is not None and count == remaining
    assert count % batch == 0 or is_short or count == max(1, int(most))


def test_an_unknown_function_begins_with_a_batch() -> None:
    assert Cutting().count(Cost(), 1000, 4, 64) == 64
    assert Cutting().count(Cost(), None, 4, 64) == 64
    assert Cutting().count(Cost(), 7, 4, 64) == 7
