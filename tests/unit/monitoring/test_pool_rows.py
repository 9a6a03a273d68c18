"""Times and percentiles in the rows of a view."""

from __future__ import annotations

from activities import activity
from jetmap.monitoring.pool_rows import Caller, quantile


def test_times_are_kept_for_as_long_as_they_are_announced() -> None:
    caller = Caller(activity(), heard=100.0)
    assert caller.at("m", 4.0) == 96.0
    for number in range(3):
        caller.begin_document()
        caller.heard += 2.0
        assert caller.at("m", caller.heard - 96.4) == 96.0, "the same moment"
        caller.at(f"other {number}", 0.0)
    caller.begin_document()
    assert set(caller.before) == {"m", "other 2"}, "a long-lived view does not grow"
    assert caller.at("m", caller.heard - 99.0) == 99.0, "another moment"


def test_a_percentile_of_nothing() -> None:
    assert quantile({}, 0.5) is None
