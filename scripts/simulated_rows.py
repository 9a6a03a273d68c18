"""Print how the benchmark's lists are cut and what that costs, on simulated cores.

``python scripts/simulated_rows.py [CORES…]`` runs the classes that decide with invented times, so a
busy machine changes nothing. Each list is mapped three times, for a caller that waits for all of
it; the last one counts. Beside the rules of today it has them without the longer chunks for steady
items (``jetmap.dispatch.rounds``), and without those of a map that is alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

from bench import work  # noqa: E402
from bench.work import Work  # noqa: E402

from jetmap.dispatch.rounds import CHUNK_COST  # noqa: E402
from simulation import Simulation  # noqa: E402

Speed = Callable[[int, float], float]
SPEED = 1e9  # Turns a second, so that turns are whole.


def _seconds(turns: Sequence[int]) -> list[float]:
    return [each / SPEED for each in turns]


def lists() -> dict[str, tuple[list[float], list[float], Speed]]:
    """Return lists with the one before each, of the same function, and the cores' speeds."""
    load = Work(SPEED)
    steady = _seconds(load.equal(2000, work.STEADY))
    tiny = _seconds(load.equal(20_000, work.TINY))
    uneven = _seconds(load.lognormal(400, work.UNEVEN))
    early = _seconds(load.pareto(200, work.HEAVY, long_at=10))
    late = _seconds(load.pareto(200, work.HEAVY, long_at=199))
    even: Speed = lambda core, now: 1.0  # noqa: E731
    slow: Speed = lambda core, now: 2.0 if core == 0 else 1.0  # noqa: E731
    return {
        "2,000 of 1.5 ms": (steady, steady, even),
        "the same after 2,000 of 15 µs": (steady, [work.TINY] * 2000, even),
        "400 lognormal, mean 6 ms": (uneven, uneven, even),
        "20,000 of 15 µs": (tiny, tiny, even),
        "the same after 200 of 1.5 ms": (tiny, [work.STEADY] * 200, even),
        "200 Pareto, a long item early": (early, early, even),
        "200 Pareto, a long item late": (late, late, even),
        "1,000,000 of 0.2 µs": ([2e-7] * 10**6, [2e-7] * 10**6, even),
        "16 of 1.5 ms": ([work.STEADY] * 16, [work.STEADY] * 16, even),
        "2,000 of 1.5 ms, ten times what they took before": (
            steady,
            [work.STEADY / 10] * 2000,
            even,
        ),
        "20,000 of 15 µs, a tenth of what they took before": (tiny, [10 * work.TINY] * 2000, even),
        "20,000 of 15 µs, one core always half as fast": (tiny, tiny, slow),
        "20,000 of 15 µs, one core half as fast from 50 ms on": (
            tiny,
            tiny,
            lambda core, now: 2.0 if core == 0 and now > 0.05 else 1.0,
        ),
        "20,000 of 15 µs, one core all but stopped from 50 ms on": (
            tiny,
            tiny,
            lambda core, now: 50.0 if core == 0 and now > 0.05 else 1.0,
        ),
    }


def simulated(
    costs: Sequence[float],
    prior: Sequence[float],
    speed: Speed,
    cores: int,
    steady: float,
    *,
    hurries: bool,
) -> tuple[float, int]:
    """Return the seconds and the chunks of a list whose function is known from others.

    Args:
        steady: Deviation below which items count as steady.
        hurries: Whether a map that is alone may have long chunks.
    """
    jitter = Random(1)
    with mock.patch("jetmap.dispatch.costs.STEADY", steady):
        began = 0.0

        def now_slower(core: int, now: float) -> float:
            # A core varies by a twentieth from item to item.
            return speed(core, now - began) * jitter.uniform(0.95, 1.05)

        simulation = Simulation(cores, overhead=CHUNK_COST, speed=now_slower, hurries=hurries)
        for list_before in (prior, prior):
            began = simulation.now + 1e9  # Cores are as fast as ever.
            simulation.open(list_before, whole=True)
            simulation.run()
        before, began = simulation.chunks, simulation.now
        map = simulation.open(costs, whole=True)
        simulation.run()
        return simulation.ended[map.id] - began, simulation.chunks - before


def main() -> None:
    for cores in [int(word) for word in sys.argv[1:]] or [2, 16]:
        print(f"{cores} cores, {CHUNK_COST * 1000:g} ms of CPU a chunk\n")
        print("| list | usual chunks | seconds | in rounds | seconds | alone | seconds | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for title, (costs, prior, speed) in lists().items():
            before, usual = simulated(costs, prior, speed, cores, -1.0, hurries=False)
            even, rounds = simulated(costs, prior, speed, cores, 0.3, hurries=False)
            now, chunks = simulated(costs, prior, speed, cores, 0.3, hurries=True)
            cells = (usual, before, rounds, even, chunks, now, now / before)
            texts = (f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells)
            print(f"| {title} | {' | '.join(texts)} |")
        print()


if __name__ == "__main__":
    main()
