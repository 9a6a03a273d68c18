"""Measure several contenders in turns, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median

Measure = Callable[[], Awaitable[float]]
Samples = dict[str, list[float]]


async def interleaved(runs: int, contenders: Mapping[str, Measure]) -> Samples:
    """Measure each contender ``runs`` times, in rounds that start with a different one each."""
    names = list(contenders)
    samples: Samples = {name: [] for name in names}
    for run in range(runs):
        first = run % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            samples[name].append(await contenders[name]())
    return samples


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Compute the median of the ratios of two contenders, round by round."""
    return median(a / b for a, b in zip(above, below, strict=True))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * share // 1) - 1))]
