"""Metric families: histograms merged under a bounded set of names."""

from __future__ import annotations

from jetmap.monitoring.families import item_seconds
from jetmap.wire.counts import FUNCTIONS, OTHER, LogBins


def test_a_histogram_of_each_function_and_one_of_all_further_ones() -> None:
    bins = LogBins()
    bins.add(0.02, 3)
    functions = [(f"f{number}", bins, 0.06) for number in range(FUNCTIONS + 5)]
    family = item_seconds("s", [*functions, ("idle", LogBins(), 0.0)])
    counts = {s.labels["function"]: s.value for s in family.samples if s.name == "s_count"}
    assert len(counts) == FUNCTIONS + 1
    assert (counts["f0"], counts[OTHER]) == (3, 15)
    buckets = [s for s in family.samples if s.labels.get("le") == "0.01"]
    assert {s.value for s in buckets} == {0}
