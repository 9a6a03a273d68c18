"""The seconds after which a chunk gives back what it has not begun."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jetmap.wire.budget import NO_LIMIT, Budget

seconds = st.floats(0, 1e6)


@given(seconds, seconds, st.integers(0, 10_000), seconds)
def test_a_budget_grows_with_each_item_and_spares_the_first(
    total: float, each: float, position: int, elapsed: float
) -> None:
    budget = Budget(total, each)
    assert not budget.is_spent(0, elapsed)
    assert budget.until(position + 1) >= budget.until(position) >= total
    if position:
        assert budget.is_spent(position, elapsed) == (elapsed >= budget.until(position))


def test_no_limit_fits_into_a_word_of_nanoseconds() -> None:
    assert not NO_LIMIT.is_spent(10_000_000, 1e8)
    assert NO_LIMIT.until(1) * 1e9 < 2**63
