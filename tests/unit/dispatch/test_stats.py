"""The counters of a dispatcher."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.stats import REASONS, WAIT_BUCKETS, Histogram, Stats, refusal_reason
from jetmap.errors import JetmapError, TooLarge, TooManyMaps, UnknownFunction
from jetmap.wire.messages import Crash

quick = examples(60)


@quick
@given(st.lists(st.floats(0, 100, allow_nan=False), max_size=50))
def test_a_histogram_counts_each_value_once_below_its_bound(seen: list[float]) -> None:
    histogram = Histogram(WAIT_BUCKETS)
    for value in seen:
        histogram.observe(value)

    assert histogram.count == sum(histogram.counts) == len(seen)
    for position, bound in enumerate(histogram.buckets):
        at_most = sum(histogram.counts[: position + 1])
        assert at_most == sum(value <= bound for value in seen)


def test_crashes_are_counted_unless_the_agent_meant_them() -> None:
    stats = Stats()
    for reason in ("died", "timeout", "stopped", "died"):
        stats.count_crash("f", Crash(0, reason, ""))  # type: ignore[arg-type]
    stats.count_crash("f", Crash(0, "died", "", signal=11))
    assert stats.crashes == {("f", "died"): 2, ("f", "timeout"): 1, ("f", "SIGSEGV"): 1}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TooManyMaps("", setting="max_open_maps", limit=1), "too-many-maps"),
        (TooLarge("", setting="max_payload", limit=1), "limit-exceeded"),
        (UnknownFunction("f"), "unknown-function"),
        (JetmapError("?"), "other"),
    ],
)
def test_refusals_are_labelled_by_the_most_exact_reason(error: JetmapError, reason: str) -> None:
    assert refusal_reason(error) == reason
    assert reason in (*REASONS, "other")
