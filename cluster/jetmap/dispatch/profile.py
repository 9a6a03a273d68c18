"""The profile of one map: where its time goes, and which items are slow. No I/O, no clock."""

from __future__ import annotations

import heapq
import math

from jetmap.wire.activity import MapDetails, SlowItem
from jetmap.wire.counts import LogBins
from jetmap.wire.messages import Report

from .flight import Flight

MOST_SLOW = 6  # Slowest items that are kept.
MOST_STEPS = 90  # Points of the curve of cores; then two neighbours become one.


class Profile:
    """Sums over the reports of a map that is more than one chunk.

    Attributes:
        compute: Seconds that its items computed.
        wait: Seconds that its chunks were out and did not compute.
        chunks: Those chunks.
        least: Seconds of the one that waited least: nothing can have been in front of it.
        again: Seconds of compute without a new outcome.
        tail_since: Time when nothing was left to send; None: something is, or was since.
    """

    def __init__(self) -> None:
        self.compute = self.wait = self.again = 0.0
        self.chunks, self.least = 0, math.inf
        self.tail_since: float | None = None
        self.bins = LogBins()
        self._slow: list[tuple[float, int, int, SlowItem]] = []
        self._reports = 0  # Number of the latest; a report may arrive twice.
        self._parallel: list[float] = []
        self._step = 0.0
        self._sampled: tuple[float, float] | None = None  # Time and compute of the last sample.
        self._pending: list[float] = []
        self._fold = 1  # Samples that make one point.

    def on_report(self, report: Report, flight: Flight | None, now: float, host: str) -> None:
        """Process a report. flight: its chunk, if that is still out."""
        final = report.final
        crashed = final is not None and final.crash is not None
        if flight is None or (crashed and not report.count):
            self.again += report.seconds
        else:
            self.compute += report.seconds
        if flight is not None:
            # A chunk may report in parts: the last one adds the time for which it was out.
            waited = -report.seconds
            if final is not None:
                waited += now - flight.published
                self.chunks += 1
                if report.start == flight.piece.start:  # In one part.
                    waited = max(0.0, waited)
                    self.least = min(self.least, waited)
            self.wait += waited
        if not report.count:
            return
        seconds = report.seconds / report.count
        self.bins.add(seconds, report.count)
        if len(self._slow) < MOST_SLOW or seconds > self._slow[0][0]:
            attempt = flight.attempt if flight is not None else report.attempt
            item = SlowItem(report.start, seconds, host, report.count, attempt)
            push = heapq.heappush if len(self._slow) < MOST_SLOW else heapq.heapreplace
            self._reports += 1
            push(self._slow, (seconds, -report.start, self._reports, item))

    def sample(self, now: float, *, is_sent: bool) -> float:
        """Return the mean number of cores at work since the last sample, and keep it."""
        if not is_sent:
            self.tail_since = None
        elif self.tail_since is None:
            self.tail_since = now
        spent = self.compute + self.again
        last, self._sampled = self._sampled, (now, spent)
        if last is None or now <= last[0]:
            return 0.0
        seconds = now - last[0]
        cores = max(0.0, (spent - last[1]) / seconds)
        self._step = self._step * 0.9 + seconds * 0.1 if self._step else seconds
        self._pending.append(cores)
        if len(self._pending) >= self._fold:
            self._parallel.append(sum(self._pending) / len(self._pending))
            self._pending.clear()
        if len(self._parallel) >= MOST_STEPS:
            pairs = zip(self._parallel[::2], self._parallel[1::2], strict=True)
            self._parallel = [(a + b) / 2 for a, b in pairs]
            self._fold *= 2
        return cores

    def details(self, id: str, now: float) -> MapDetails:
        slow = [item for *_, item in sorted(self._slow, reverse=True)]
        tail = 0.0 if self.tail_since is None else now - self.tail_since
        wait = max(0.0, self.wait)
        way = 0.0 if math.isinf(self.least) else min(wait, self.least * self.chunks)
        return MapDetails(
            id,
            wait,
            self.compute,
            self.again,
            tail,
            dict(self.bins.counts),
            slow,
            list(self._parallel),
            self._step * self._fold,
            way=way,
        )
