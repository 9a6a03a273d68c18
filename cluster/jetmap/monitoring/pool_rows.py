"""The rows of a pool's view: maps, functions, and causes of failures. No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from jetmap.wire.activity import Activity, FailureActivity, FunctionActivity, MapActivity

LEAST_WAIT = 1.0  # Seconds of a map's oldest wait that are shown.
JITTER = 1.5  # Seconds by which an age may shift between announcements and mean the same moment.

Row = dict[str, Any]


@dataclass
class Caller:
    """A dispatcher: its latest announcement, and when that came.

    moments: the times that its ages mean, by what; those of the document before, too.
    """

    activity: Activity
    heard: float
    moments: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)

    def begin_document(self) -> None:
        """Forget the times of what is no longer announced."""
        self.before, self.moments = self.moments, {}

    def at(self, key: str, age: float) -> float:
        """Return the time that an age means, the same one as long as it hardly shifts."""
        at = self.heard - age
        known = self.before.get(key)
        if known is None or abs(known - at) > JITTER:
            known = round(at, 1)
        self.moments[key] = known
        return known


def map_row(activity: MapActivity, caller: Caller, cores: int, weights: float) -> Row:
    is_running = activity.state == "running"
    oldest, ended = f"oldest {activity.id}", None
    if activity.ended is not None:
        ended = caller.at(f"end {activity.id}", activity.ended)
    return {
        "id": activity.id,
        "function": activity.function,
        "kind": activity.kind,
        "owner": caller.activity.owner,
        "labels": activity.labels,
        "state": activity.outcome if activity.ended is not None else activity.state,
        "total": activity.total,
        "done": activity.done,
        "failed": activity.failed,
        "rate": round(activity.rate, 1),
        "left": None if activity.left is None else float(f"{activity.left:.3g}"),
        "cores": round(activity.cores, 1),
        "fair": round(cores * activity.weight / weights, 1) if is_running and weights else None,
        "weight": activity.weight,
        "limit": activity.limit,
        "waits": activity.waits,
        "oldest": None if activity.oldest < LEAST_WAIT else caller.at(oldest, activity.oldest),
        "started": caller.at(activity.id, activity.age),
        "ended": ended,
        "seconds": round(activity.seconds, 2),
    }


def is_newer(one: MapActivity, other: MapActivity) -> bool:
    """Return whether an announcement of a map is newer: open, ended later, or further on."""
    return _progress(one) > _progress(other)


def _progress(activity: MapActivity) -> tuple[bool, float, int]:
    return activity.ended is None, -(activity.ended or 0.0), activity.done


def new_function(name: str) -> Row:
    return {
        "name": name, "doc": "", "module": "", "hosts": 0, "versions": [], "items": 0,
        "seconds": 0.0, "rate": 0.0, "failed": 0, "bins": {}, "in": 0.0, "out": 0.0,
        "waiting": 0, "waiting_seconds": 0.0, "paused": False, "limit": None, "declared": None,
    }  # fmt: skip


def add(row: Row, function: FunctionActivity) -> None:
    row["items"] += function.items
    row["seconds"] = round(row["seconds"] + function.seconds, 3)
    row["rate"] += function.rate
    row["failed"] += function.failed
    row["waiting"] += function.waiting
    row["waiting_seconds"] = round(row["waiting_seconds"] + function.waiting_seconds, 2)
    row["in"] += function.item_bytes * function.items
    row["out"] += function.value_bytes * function.items
    for number, count in function.bins.items():
        row["bins"][number] = row["bins"].get(number, 0) + count


def failure_row(failure: FailureActivity, caller: Caller) -> Row:
    return {
        "key": failure.key,
        "function": failure.function,
        "kind": failure.kind,
        "type": failure.type,
        "message": failure.message,
        "count": failure.count,
        "first": caller.at(f"first {failure.key}", failure.first),
        "last": caller.at(f"last {failure.key}", failure.last),
        "counts": failure.counts,
        "hosts": failure.hosts,
        "indexes": failure.indexes,
        "job": failure.job,
    }


def merged(one: Row, other: Row) -> Row:
    """Add up two callers' failures of one cause."""
    return {
        **one,
        "count": one["count"] + other["count"],
        "first": min(one["first"], other["first"]),
        "last": max(one["last"], other["last"]),
        "counts": [a + b for a, b in zip(one["counts"], other["counts"], strict=True)],
        "hosts": sorted({*one["hosts"], *other["hosts"]})[:9],
        "job": one["job"] or other["job"],
    }


def quantile(bins: dict[int, int] | Counter[int], part: float) -> float | None:
    """Return the seconds below which ``part`` of the counts lie; None: nothing was counted."""
    total = sum(bins.values())
    if not total:
        return None
    below = 0
    for number in sorted(bins):
        count = bins[number]
        if below + count >= part * total:
            # The counts of a bin are spread over it evenly, on its logarithmic scale.
            inside = (part * total - below) / count
            return float(f"{10.0 ** ((number - 60 + inside) / 10):.3g}")
        below += count
    return None


def rounded(size: int) -> int:
    """Round to two digits: what hardly changes is not sent again."""
    return int(float(f"{size:.2g}"))
