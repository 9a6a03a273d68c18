"""Times and percentiles in the rows of a view."""

from __future__ import annotations

from activities import activity, map_of
from jetmap.monitoring.pool_rows import Caller, map_row, quantile


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


def test_the_oldest_wait_is_a_time_and_a_short_one_is_none() -> None:
    caller = Caller(activity(), heard=100.0)
    assert map_row(map_of(oldest=12.0), caller, 4, 1.0)["oldest"] == 88.0
    assert map_row(map_of(oldest=0.4), caller, 4, 1.0)["oldest"] is None


def test_a_percentile_of_nothing() -> None:
    assert quantile({}, 0.5) is None
