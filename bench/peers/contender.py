"""One contender in a process of its own.

``python -m bench.peers.contender NAME CORES SHRINK SPEED`` reads the name of a row a line, and
prints a ``Sample`` of JSON for each; it ends with its input.
"""

from __future__ import annotations

import sys
from time import perf_counter

import msgspec
import psutil

from bench.measure import quantile
from bench.work import Work

from .contenders import CONTENDERS, Contender, cold
from .rows import PeerRow, rows


class Sample(msgspec.Struct, frozen=True):
    """One measurement.

    Attributes:
        seconds: Of the row; for single items the median.
        cpu: Busy seconds of the whole machine meanwhile, so run it on a quiet one.
        p99: Of single items.
        refused: The reason why there is no measurement.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    p99: float = 0.0
    refused: str = ""


def busy() -> float:
    """Return the busy seconds of all cores so far."""
    times = psutil.cpu_times()
    return times.user + times.system + times.nice + times.irq + times.softirq


def measure(name: str, contender: Contender, row: PeerRow, tuned: set[str], title: str) -> Sample:
    """Measure a row once; the first time after a map of the same, and tuning by hand."""
    if row.kind == "start":
        began = busy()
        return Sample(cold(name), busy() - began)
    if row.kind == "one":
        times = contender.latencies(row.f, [*row.items[:20], *row.items])[20:]
        return Sample(quantile(times, 0.5), p99=quantile(times, 0.99))
    expected = [row.f(item) for item in row.items] if not row.seconds else None
    if title not in tuned:
        tuned.add(title)
        if not row.prior:
            contender.tune(row.f, row.items)
            contender.map(row.f, row.items)
    if row.prior:
        contender.map(row.f, row.prior)
    before, began = busy(), perf_counter()
    if row.kind == "many":
        contender.many(row.f, [row.items] * row.lists)
        return Sample(perf_counter() - began, busy() - before)
    values = contender.map(row.f, row.items)
    sample = Sample(perf_counter() - began, busy() - before)
    if len(values) != len(row.items) or (expected is not None and values != expected):
        return Sample(refused="wrong values")
    return sample


def main() -> None:
    name, cores, shrink, speed = sys.argv[1:5]
    chosen = rows(Work(float(speed)), int(shrink))
    contender = CONTENDERS[name](int(cores))
    try:
        contender.start()
    except Exception as error:  # It is reported for each row.
        failure = f"{type(error).__name__}: {error}"
        for _ in sys.stdin:
            _say(Sample(refused=failure[:200]))
        return
    tuned: set[str] = set()
    try:
        for line in sys.stdin:
            title = line.strip()
            try:
                _say(measure(name, contender, chosen[title], tuned, title))
            except Exception as error:
                _say(Sample(refused=f"{type(error).__name__}: {error}"[:200]))
    finally:
        contender.stop()


def _say(sample: Sample) -> None:
    sys.stdout.write(msgspec.json.encode(sample).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
