"""Inputs: the speed of the loop on this machine, and lists of items of known cost."""

from __future__ import annotations

import random
from dataclasses import dataclass
from time import perf_counter

from .tasks import spin

STEADY = 0.0015
UNEVEN = 0.006
TINY = 0.000015
HEAVY = 0.006
LONG = 0.25  # Share of a list's time that its one long item takes.
CRASHING = 0.00025
SEED = 20120907


def primes(count: int, above: int) -> list[int]:
    """The first ``count`` primes above a number."""
    found: list[int] = []
    n = above
    while len(found) < count:
        n += 1
        if n % 2 and all(n % d for d in range(3, int(n**0.5) + 1, 2)):
            found.append(n)
    return found


def turns_per_second(*, seconds: float = 0.02, repeats: int = 15) -> float:
    """Measure the loop's speed on an undisturbed core: the best of ``repeats`` timings."""
    turns = 1000
    while _time(turns) < seconds:
        turns *= 2
    return turns / min(_time(turns) for _ in range(repeats))


def _time(turns: int) -> float:
    began = perf_counter()
    spin(turns)
    return perf_counter() - began


@dataclass(frozen=True)
class Work:
    """Items of a known cost. speed: turns of the loop a second, calibrated once in a run."""

    speed: float

    def equal(self, count: int, seconds: float) -> list[int]:
        """``count`` items of ``seconds`` each."""
        return [max(1, round(self.speed * seconds))] * count

    def lognormal(self, count: int, mean: float, sigma: float = 1.0) -> list[int]:
        """``count`` items, lognormal, with exactly this mean in seconds; the same in every run."""
        draw = random.Random(SEED)
        sizes = [draw.lognormvariate(0.0, sigma) for _ in range(count)]
        scale = self.speed * mean * count / sum(sizes)
        return [max(1, round(size * scale)) for size in sizes]

    def pareto(self, count: int, mean: float, *, long_at: int) -> list[int]:
        """``count`` items, Pareto, with this mean in seconds; one takes a quarter of all."""
        draw = random.Random(SEED)
        sizes = [draw.paretovariate(1.5) for _ in range(count)]
        sizes[long_at] = 0.0
        sizes[long_at] = sum(sizes) * LONG / (1 - LONG)
        scale = self.speed * mean * count / sum(sizes)
        return [max(1, round(size * scale)) for size in sizes]
