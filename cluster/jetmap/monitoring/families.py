"""Metric families as Prometheus reads them, and their text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from jetmap.wire.counts import LogBins, Names

# Bins of seconds whose upper ends are buckets: two a decade, from 10 µs to an hour and more.
_BUCKET_BINS = range(9, 96, 5)


def exposed(accept: str, *collectors: Collector) -> tuple[bytes, str]:
    """Return the text of these collectors, and its content type.

    Args:
        accept: The request's header; OpenMetrics if it accepts that.
    """
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # An Accept that names a version which is not a number.
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


def counter(name: str, text: str, value: float) -> CounterMetricFamily:
    """Return a counter without labels."""
    return CounterMetricFamily(name, text, value=value)


def labelled(name: str, text: str, label: str, counts: Mapping[str, float]) -> CounterMetricFamily:
    """Return a counter with one label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def by_function(
    name: str, text: str, counts: Mapping[tuple[str, str], float]
) -> CounterMetricFamily:
    """Return a counter of pairs of a function and a kind."""
    family = CounterMetricFamily(name, text, labels=["function", "kind"])
    for (function, kind), count in sorted(counts.items()):
        family.add_metric([function, kind], count)
    return family


def item_seconds(
    name: str, functions: Iterable[tuple[str, LogBins, float]]
) -> HistogramMetricFamily:
    """Return a histogram for each function, given its bins and the sum of its seconds."""
    text = "Seconds of compute of an item; short ones count as the mean of their chunk."
    family = HistogramMetricFamily(name, text, labels=["function"])
    names = Names()
    merged: dict[str, tuple[Counter[int], float]] = {}
    for function, found, sum_of in functions:
        label = names.of(function)
        bins, seconds = merged.get(label, (Counter[int](), 0.0))
        bins.update(found.counts)
        merged[label] = bins, seconds + sum_of
    for label, (bins, seconds) in sorted(merged.items()):
        if not bins:
            continue
        buckets = [
            (f"{10.0 ** ((last - 59) / 10):.3g}", sum(c for n, c in bins.items() if n <= last))
            for last in _BUCKET_BINS
        ]
        buckets.append(("+Inf", sum(bins.values())))
        family.add_metric([label], buckets, sum_value=seconds)
    return family
