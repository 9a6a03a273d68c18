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
    activities, refused, control = view.activities, view.refused(), view.control
    # More cores would not do what is paused, and only so much of what is limited.
    functions = [f for a in activities for f in a.functions]
    paused = [f for f in functions if control.paused or control.of(f.name).paused]
    backlog = sum(a.waiting_seconds for a in activities) - sum(f.waiting_seconds for f in paused)
    waiting = sum(a.waiting for a in activities) - sum(f.waiting for f in paused)
    turned_away = sum(refused[reason] for reason in WORKERLESS)
    unknown = sum(a.unknown for a in activities) + turned_away
    unknown -= sum(f.waiting for f in paused if not f.is_known)
    needless = 0.0
    for name, limit in view.limits().items():
        limited = sum(f.waiting_seconds for f in functions if f.name == name and f not in paused)
        needless += max(0.0, limited - limit * seconds)
    serving = [p for p in view.agents if not p.draining]
    cores, busy = sum(p.cores for p in serving), sum(p.busy for p in serving)
    # What is unknown may take long: as many cores again as there are, at most.
    wanted = busy + math.ceil((backlog - needless) / seconds) + min(unknown, max(1, cores))
    if not waiting and not turned_away:
        wanted = busy
    return Scale(round(backlog, 3), unknown, cores, wanted)
