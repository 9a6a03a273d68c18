"""The backlog of a dispatcher: the items that wait, and the seconds that they will take. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .maps import OpenMaps
from .roster import Roster
from .scheduler import Scheduler
from .stats import Stats

# Function and number of items of each piece of work that waits outside of open maps.
Parked = Callable[[], Iterable[tuple[str, int]]]


class Backlog:
    """Measure what is out and what waits, in open maps and outside of them.

    Attributes:
        parked: Returns what waits outside of open maps, such as jobs without workers.
    """

    def __init__(self, maps: OpenMaps, scheduler: Scheduler, roster: Roster) -> None:
        self.parked: Parked = tuple
        self._maps = maps
        self._scheduler = scheduler
        self._roster = roster

    def measure(self, stats: Stats) -> None:
        """Update the gauges."""
        scheduler = self._scheduler
        stats.in_flight = sum(len(run.ledger.flights) for run in self._maps)
        waiting = [(scheduler.cost(function), items) for function, items in self.parked()]
        for run in self._maps:
            has_workers = self._roster.offer(run.spec.function, run.spec.ref) is not None
            waiting.append((run.cost, run.backlog_items(has_workers=has_workers)))
        stats.backlog_items = sum(items for _, items in waiting)
        stats.backlog_seconds = sum(
            items * scheduler.cutting.estimate(cost) for cost, items in waiting
        )
