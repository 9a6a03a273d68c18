"""Sets of indices, against plain sets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.intervals import IntervalSet

quick = examples(60)

ranges = st.tuples(st.integers(0, 60), st.integers(0, 60))


def indices(parts: list[tuple[int, int]]) -> set[int]:
    return {index for a, b in parts for index in range(a, b)}


@quick
@given(st.lists(ranges, max_size=40), ranges)
def test_an_interval_set_is_a_set(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    intervals, plain = IntervalSet(), set[int]()
    for start, end in added:
        fresh = set(range(start, end)) - plain
        new = intervals.add(start, end)
        assert indices(new) == fresh
        assert sum(b - a for a, b in new) == len(fresh)
        plain |= fresh
        assert intervals.size == len(plain)

    start, end = asked
    assert indices(intervals.missing(start, end)) == set(range(start, end)) - plain
    assert intervals.covers(start, end) == plain.issuperset(range(start, end))
    assert indices(intervals.ranges()) == plain


@quick
@given(st.lists(ranges, max_size=40), ranges)
def test_ranges_are_sorted_maximal_and_not_empty(
    added: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    intervals = IntervalSet()
    for start, end in added:
        intervals.add(start, end)

    for parts in (intervals.ranges(), intervals.missing(*asked)):
        assert all(a < b for a, b in parts)
        assert all(before[1] < after[0] for before, after in pairwise(parts))


@quick
@given(st.permutations(range(200)), st.integers(1, 20))
def test_what_is_filled_up_becomes_one_range(order: list[int], step: int) -> None:
    intervals = IntervalSet()
    for index in order:
        intervals.add(index * step, index * step + step)

    assert intervals.ranges() == [(0, 200 * step)]
    assert intervals.covers(0, 200 * step)
    assert not intervals.covers(0, 200 * step + 1)
