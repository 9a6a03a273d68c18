"""Choose which silent chunks are published again. No I/O, no clock.

A chunk that no agent claims waits at the broker, or the broker has lost it, for example with its
memory. A second publish tells: the broker refuses it if it still has the first one. That does no
harm, but costs as much as any publish, and behind long items each chunk waits for minutes. So of a
long queue only some are published again, in turn, and all of them once one has been lost.
"""

from __future__ import annotations

from heapq import nsmallest
from math import ceil

from .flight import Flight

PROBES = 8  # Chunks of one queue that are published again at each check, at least.
SWEEP_CHECKS = 60  # Checks in which each chunk of a queue has its turn, however long the queue is.
KEPT_SECONDS = 60.0  # Seconds for which a loss casts doubt on what was published before.


class Probes:
    """Choose among chunks without a sign of life. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        # Time before which everything that was published may be lost.
        self._doubted = float("-inf")
        # The same of single queues, by their names.
        self._losses: dict[str, float] = {}

    def on_reconnect(self, now: float) -> None:
        """Record that the broker may have lost everything."""
        self._doubted = now

    def on_lost(self, flight: Flight, now: float) -> None:
        """Record that the broker did not have a chunk when it was published again."""
        self._losses[_queue(flight)] = now

    def choose(self, silent: list[Flight], now: float) -> set[Flight]:
        """Return the chunks to publish again at this check.

        Those that were claimed before are always among them, because their agents may be gone, and
        those that no ack has confirmed.
        """
        self._losses = {q: at for q, at in self._losses.items() if now - at < KEPT_SECONDS}
        chosen: set[Flight] = set()
        queues: dict[str, list[Flight]] = {}
        for flight in silent:
            queue = _queue(flight)
            doubted = max(self._doubted, self._losses.get(queue, self._doubted))
            if flight.claims or not flight.confirmed or flight.heard < doubted:
                chosen.add(flight)
            else:
                queues.setdefault(queue, []).append(flight)
        for flights in queues.values():
            turns = max(PROBES, ceil(len(flights) / SWEEP_CHECKS))
            chosen.update(nsmallest(turns, flights, key=_heard))
        return chosen


def _heard(flight: Flight) -> float:
    return flight.heard


def _queue(flight: Flight) -> str:
    """Name what a chunk waits for: the queue, offer and lane of its subject."""
    return flight.subject.rsplit(".", 2)[0]
