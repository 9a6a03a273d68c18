"""One contender in a process of its own.

``python -m bench.peers.contender NAME CORES SHRINK SPEED`` reads the name of a row a line, and
prints a ``Sample`` of JSON for each; an empty line ends a row. It ends with its input.
"""

from __future__ import annotations

import os
import sys
from time import perf_counter
from typing import Any

import msgspec
import psutil

from bench.measure import quantile
from bench.work import Work

from .contenders import CONTENDERS, Contender, cold
from .rows import PeerRow, rows

# Seconds of a first map, which only warms up, from which on it is the measurement.
LONG_SECONDS = 10.0


class Sample(msgspec.Struct, frozen=True):
    """One measurement.

    Attributes:
        seconds: Of the row; for single items the median.
        cpu: Busy seconds of the whole machine meanwhile, so run it on a quiet one.
        p99: Of single items.
        refused: The reason why there is no measurement.
        spent: Seconds that it took with warming up and tuning.
        is_cold: Whether the first map was measured, because it took so long.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    p99: float = 0.0
    refused: str = ""
    spent: float = 0.0
    is_cold: bool = False


def busy() -> float:
    """Return the busy seconds of all cores so far."""
    times = psutil.cpu_times()
    return times.user + times.system + times.nice + times.irq + times.softirq


class Measuring:
    """Measure rows with one contender. name: the contender's."""

    def __init__(self, name: str, contender: Contender, chosen: dict[str, PeerRow]) -> None:
        self._name = name
        self._contender = contender
        self._rows = chosen
        self._row = ""  # The row in progress, which is warm.
        self._items: list[Any] = []
        self._expected: list[Any] | None = None

    def measure(self, title: str) -> Sample:
        """Measure a row once; the first time after a map of the same, and tuning by hand."""
        began = perf_counter()
        sample = self._measure(self._rows[title], is_new=title != self._row)
        self._row = title
        return msgspec.structs.replace(sample, spent=perf_counter() - began)

    def forget(self) -> None:
        """Drop the items of the row in progress: those of some rows take much memory."""
        self._row, self._items, self._expected = "", [], None

    def _measure(self, row: PeerRow, *, is_new: bool) -> Sample:
        if row.kind == "start":
            before = busy()
            return Sample(cold(self._name), busy() - before)
        if is_new:
            self._expected = None
            self._items = row.inputs()
            if not row.seconds:
                self._expected = [row.f(item) for item in self._items]
        if row.kind == "one":
            times = self._contender.latencies(row.f, [*self._items[:20], *self._items])[20:]
            return Sample(quantile(times, 0.5), p99=quantile(times, 0.99))
        if is_new and not row.prior:
            self._contender.tune(row.f, self._items)
            first = self._map(row)
            if first.seconds >= LONG_SECONDS or first.refused:
                return msgspec.structs.replace(first, is_cold=True)
        if row.prior:
            self._contender.map(row.f, row.prior)
        return self._map(row)

    def _map(self, row: PeerRow) -> Sample:
        before, began = busy(), perf_counter()
        if row.kind == "many":
            self._contender.many(row.f, [self._items] * row.lists)
            return Sample(perf_counter() - began, busy() - before)
        values = self._contender.map(row.f, self._items)
        sample = Sample(perf_counter() - began, busy() - before)
        if len(values) != len(self._items) or self._expected not in (None, values):
            return Sample(refused="wrong values")
        return sample


def main() -> None:
    name, cores, shrink, speed = sys.argv[1:5]
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(sample: Sample) -> None:
        answers.write(msgspec.json.encode(sample) + b"\n")

    contender = CONTENDERS[name](int(cores))
    try:
        contender.start()
    except Exception as error:  # It is reported for each row.
        failure = f"{type(error).__name__}: {error}"
        for line in sys.stdin:
            if line.strip():
                say(Sample(refused=failure[:200]))
        return
    measuring = Measuring(name, contender, rows(Work(float(speed)), int(shrink)))
    try:
        for line in sys.stdin:
            if not (title := line.strip()):
                measuring.forget()
                continue
            try:
                say(measuring.measure(title))
            except Exception as error:
                say(Sample(refused=f"{type(error).__name__}: {error}"[:200]))
    finally:
        contender.stop()


if __name__ == "__main__":
    main()
