"""The counters of a dispatcher, for metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from jetmap import errors
from jetmap.wire.counts import LogBins, Names, crash_cause
from jetmap.wire.messages import Crash

WAIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass
class Histogram:
    """Observations counted by size."""

    buckets: tuple[float, ...]  # Upper bounds.
    counts: list[int] = field(default_factory=list)  # For each bucket; behind them, all above.
    sum: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.buckets) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.buckets, value)] += 1
        self.sum += value
        self.count += 1


@dataclass
class Stats:
    """The counters of one dispatcher."""

    maps_started: int = 0
    maps_open: int = 0
    maps_ended: Counter[str] = field(default_factory=Counter)  # ok, failed, withdrawn, timeout.
    items_done: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # By kind.
    maps_refused: Counter[str] = field(default_factory=Counter)  # By reason.
    chunks_sent: int = 0  # Chunks cut, and sent for the first time.
    chunks: int = 0  # Chunks answered to their end.
    chunks_again: Counter[str] = field(default_factory=Counter)  # Chunks sent again, by reason.
    crashes: Counter[tuple[str, str]] = field(default_factory=Counter)  # By function and cause.
    agents_lost: int = 0  # Agents that went silent without a goodbye.
    compute_seconds: float = 0.0
    in_flight: int = 0
    backlog_items: int = 0  # Items that wait, in open maps and in jobs that this process owns.
    backlog_seconds: float = 0.0  # Their estimated compute.
    # Seconds from publishing a chunk to its result, less its compute.
    queue_wait: Histogram = field(default_factory=lambda: Histogram(WAIT_BUCKETS))
    express_wait: LogBins = field(default_factory=LogBins)  # The same, of the lane for short maps.
    _names: Names = field(default_factory=Names)

    def count_crash(self, function: str, crash: Crash) -> None:
        """Count the death of a worker, unless its agent stopped it."""
        if crash.reason != "stopped":
            self.crashes[self._names.of(function), crash_cause(crash)] += 1


REFUSALS: list[tuple[type[BaseException], str]] = [
    (errors.TooManyMaps, "too-many-maps"),
    (errors.LimitExceeded, "limit-exceeded"),
    (errors.UnknownFunction, "unknown-function"),
    (errors.NoWorkers, "no-workers"),
    (errors.WorkerStartFailed, "workers-cannot-start"),
    (errors.BrokerUnreachable, "broker-unreachable"),
    (errors.ClusterClosed, "closed"),
]
REASONS = tuple(reason for _, reason in REFUSALS)


def refusal_reason(error: BaseException) -> str:
    """Return the label of the reason for which a map could not begin."""
    return next((reason for cls, reason in REFUSALS if isinstance(error, cls)), "other")
