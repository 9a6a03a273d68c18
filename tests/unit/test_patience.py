"""Seconds of waiting that count, step by step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.patience import Patience

seconds = st.floats(0, 1e6)


def test_a_step_that_takes_too_long_counts_for_twice_what_it_was_to_take() -> None:
    patience = Patience(10)
    assert patience.step(4) == 4
    patience.spend(3)
    assert patience.left == 7
    patience.step(3)
    patience.spend(3600)
    assert patience.left == 1 and not patience.is_over
    assert patience.step(4) == 1
    patience.spend(3600)
    assert patience.is_over and patience.step(4) == 0


@examples(100)
@given(seconds, st.lists(st.tuples(seconds, seconds), max_size=20))
def test_no_step_takes_more_than_is_left(all: float, steps: list[tuple[float, float]]) -> None:
    patience = Patience(all)
    for most, took in steps:
        left = patience.left
        given_ = patience.step(most)
        assert 0 <= given_ <= max(0.0, min(most, left))
        patience.spend(took)
        assert patience.left <= left and patience.left >= left - 2 * given_
