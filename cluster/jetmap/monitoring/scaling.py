"""Decide how many cores a pool should have, from what waits in it. No I/O, no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .pool_view import PoolView

# Reasons for which maps are refused that more workers would mend.
WORKERLESS = ("no-workers", "workers-cannot-start")


@dataclass(frozen=True)
class Scale:
    """The load of a pool, for an autoscaler.

    Attributes:
        backlog_seconds: Estimated compute of all items that wait, in maps and jobs.
        unknown_items: Items that wait whose cost nobody knows, and maps that were refused in the
            last minute because nobody has their function.
        cores: Cores that take chunks now.
        wanted_cores: Cores with which the backlog would be done in time; 0: nothing runs or waits.
    """

    backlog_seconds: float
    unknown_items: int
    cores: int
    wanted_cores: int


def scale_of(view: PoolView, seconds: float) -> Scale:
    """Return the load of a pool.

    Args:
        seconds: Time in which the backlog should be done.
    """
    activities, refused = view.activities, view.refused()
    backlog = sum(a.waiting_seconds for a in activities)
    waiting = sum(a.waiting for a in activities)
    turned_away = sum(refused[reason] for reason in WORKERLESS)
    unknown = sum(a.unknown for a in activities) + turned_away
    serving = [p for p in view.agents if not p.draining]
    cores, busy = sum(p.cores for p in serving), sum(p.busy for p in serving)
    # What is unknown may take long: as many cores again as there are, at most.
    wanted = busy + math.ceil(backlog / seconds) + min(unknown, max(1, cores))
    if not waiting and not turned_away:
        wanted = busy
    return Scale(round(backlog, 3), unknown, cores, wanted)
