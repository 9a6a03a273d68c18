"""Seconds of waiting that count, step by step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.time_budget import TimeBudget

seconds = st.floats(0, 1e6)


def test_a_step_that_takes_too_long_counts_for_twice_what_it_was_to_take() -> None:
    budget = TimeBudget(10)
    assert budget.step(4) == 4
    budget.spend(3)
    assert budget.left == 7
    budget.step(3)
    budget.spend(3600)
    assert budget.left == 1 and not budget.is_over
    assert budget.step(4) == 1
    budget.spend(3600)
    assert budget.is_over and budget.step(4) == 0


@examples(100)
@given(seconds, st.lists(st.tuples(seconds, seconds), max_size=20))
def test_no_step_takes_more_than_is_left(all: float, steps: list[tuple[float, float]]) -> None:
    budget = TimeBudget(all)
    for most, took in steps:
        left = budget.left
        given_ = budget.step(most)
        assert 0 <= given_ <= max(0.0, min(most, left))
        budget.spend(took)
        assert budget.left <= left and budget.left >= left - 2 * given_
