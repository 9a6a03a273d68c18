"""Counters of an agent, and their sums over a pool. No I/O, no clock."""

from __future__ import annotations

import signal
from bisect import bisect_right
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .messages import Crash

# Functions that are counted by name; further ones are counted together, as OTHER.
FUNCTIONS = 200
OTHER = "(other)"
# Agents whose last counters are remembered, for their next announcement.
AGENTS_KEPT = 10_000

# Function and kind: "ok" or an item error's kind for items; "died", "timeout" and the like, or
# a signal's name, for crashes.
CountKey = tuple[str, str]
CountRows = list[tuple[str, str, int]]


class Names:
    """A bounded set of names for labels, however many a client invents."""

    def __init__(self, most: int = FUNCTIONS) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """Return the name, or OTHER once there are too many."""
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name


# Seconds at which the bins of ``LogBins`` begin, from bin 1 on.
_BOUNDS = [10 ** (number / 10 - 6) for number in range(1, 111)]


class LogBins:
    """Seconds counted in bins of equal ratio, ten a decade, so that those of many can be added.

    Bin 0 is of all below 1.26 µs, the last one begins at 10^5 s.
    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[int, int] = defaultdict(int)

    def add(self, seconds: float, count: int = 1) -> None:
        self.counts[bisect_right(_BOUNDS, seconds)] += count


def signal_name(number: int) -> str:
    """Return ``SIGSEGV`` or the like, or the number of an unknown signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def crash_cause(crash: Crash) -> str:
    """Return the label of a worker's death: its signal's name, else the reason."""
    return crash.reason if crash.signal is None else signal_name(crash.signal)


@dataclass(slots=True)
class FunctionCounts:
    """Counters of one function at an agent.

    seconds: compute; bins: of an item, those of one report counting as their mean.
    """

    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # By kind.
    seconds: float = 0.0
    bins: LogBins = field(default_factory=LogBins)


class AgentCounts:
    """Counters of one agent since it started.

    functions: outcomes and compute by function. crashes: workers that died with an item, by
    function and cause. recycled: workers replaced after long service. start_failures: workers that
    could not start. memory_kills: workers that the kernel killed for want of memory. changes: how
    often outcomes or crashes were counted.
    """

    def __init__(self) -> None:
        self.functions: dict[str, FunctionCounts] = {}
        self.crashes: Counter[CountKey] = Counter()
        self.recycled = 0
        self.start_failures = 0
        self.memory_kills = 0
        self.changes = 0
        self._names = Names()

    @property
    def items(self) -> Counter[CountKey]:
        """Outcomes by function and kind."""
        items: Counter[CountKey] = Counter()
        for name, function in self.functions.items():
            if function.ok:
                items[name, "ok"] = function.ok
            for kind, count in function.failed.items():
                items[name, kind] = count
        return items

    def outcomes(
        self, function: str, count: int, failed: Sequence[str], seconds: float = 0.0
    ) -> None:
        """Count ``count`` outcomes that took ``seconds`` of compute.

        failed: one error kind for each outcome that failed.
        """
        self.changes += 1
        counts = self.functions.get(function) or self._counts_of(function)
        if failed:
            counts.failed.update(failed)
        if count:
            # (A report of tries that failed has records without outcomes.)
            counts.ok += count - len(failed)
            counts.seconds += seconds
            counts.bins.add(seconds / count, count)

    def _counts_of(self, function: str) -> FunctionCounts:
        return self.functions.setdefault(self._names.of(function), FunctionCounts())

    def crash(self, function: str, cause: str) -> None:
        self.changes += 1
        self.crashes[self._names.of(function), cause] += 1


def rows(counter: Counter[CountKey]) -> CountRows:
    """Return a counter as it travels."""
    return [(function, kind, count) for (function, kind), count in counter.items()]


class PoolCounts:
    """Sums over every agent that this process has known; they only grow."""

    def __init__(self) -> None:
        self.items: Counter[CountKey] = Counter()
        self.crashes: Counter[CountKey] = Counter()
        self.workers: Counter[str] = Counter()  # recycled, start_failures
        self._last: OrderedDict[str, _Seen] = OrderedDict()
        self._names = Names()

    def heard(
        self, agent: str, items: CountRows, crashes: CountRows, recycled: int, start_failures: int
    ) -> None:
        """Add an agent's announced counters. Announcements may come late and out of order."""
        seen = self._last.pop(agent, None) or _Seen()
        self._last[agent] = seen
        self._add(items, seen.items, self.items)
        self._add(crashes, seen.crashes, self.crashes)
        for kind, count in (("recycled", recycled), ("start_failures", start_failures)):
            before = seen.workers.get(kind, 0)
            if count > before:
                seen.workers[kind] = count
                self.workers[kind] += count - before
        if len(self._last) > AGENTS_KEPT:
            self._last.popitem(last=False)

    def _add(self, rows: CountRows, seen: dict[CountKey, int], sums: Counter[CountKey]) -> None:
        for function, kind, count in rows:
            key = function, kind
            before = seen.get(key, 0)
            if count > before:
                seen[key] = count
                sums[self._names.of(function), kind] += count - before


class _Seen:
    """The largest counters that one agent has announced."""

    __slots__ = ("crashes", "items", "workers")

    def __init__(self) -> None:
        self.items: dict[CountKey, int] = {}
        self.crashes: dict[CountKey, int] = {}
        self.workers: dict[str, int] = {}
