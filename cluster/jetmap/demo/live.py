"""The state of a running gateway, read twice: cores, items a second, and speed-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_CELLS = 64  # Cores that are drawn; of more, only the numbers are shown.


@dataclass(frozen=True)
class Reading:
    """The counts of a gateway at one time.

    Attributes:
        at: Seconds of a monotonic clock.
        busy: For each core, whether it computes.
        items: Items that have an outcome.
        seconds: Seconds that items have computed, on all cores together.
    """

    at: float
    busy: tuple[bool, ...]
    items: float
    seconds: float

    @classmethod
    def of(cls, at: float, workers: Sequence[Mapping[str, Any]], metrics: str) -> Reading:
        """Read the answers of ``/workers`` and ``/metrics``."""
        busy = tuple(core["state"] == "busy" for agent in workers for core in agent["workers"])
        samples = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line[:1] != "#")
        return cls(
            at,
            busy,
            float(samples.get("jetmap_items_total", 0)),
            float(samples.get("jetmap_compute_seconds_total", 0)),
        )


def figures(before: Reading, now: Reading) -> str:
    """Say what happened between two readings.

    The speed-up is the seconds that items computed over the seconds that passed: what one core
    would have needed for them.
    """
    passed = max(now.at - before.at, 1e-9)
    cells = "".join("■" if busy else "□" for busy in now.busy[:MOST_CELLS])
    return (
        f"cores {cells if len(now.busy) <= MOST_CELLS else ''} {sum(now.busy)} of "
        f"{len(now.busy)} busy · {max(0.0, now.items - before.items) / passed:,.0f} items/s · "
        f"{max(0.0, now.seconds - before.seconds) / passed:.1f} times one core"
    )
