"""Row of items that kill their process, beside a process pool that does not survive that."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from statistics import median
from time import perf_counter

from jetmap import ItemError

from . import tasks, work
from .run import Run
from .table import Row, Target, seconds

ITEMS = 2000
RAISING, KILLING = 700, (300, 900, 1500)


async def crashes(run: Run) -> list[Row]:
    """2,000 items: one raises and three kill their process; all others keep their results."""
    items = run.work.equal(ITEMS, work.CRASHING)
    items[RAISING] = tasks.RAISES
    for index in KILLING:
        items[index] = tasks.KILLS
    good = ITEMS - len(KILLING) - 1
    cluster = await run.cluster()
    await cluster.map(tasks.risky, items[:100])

    async def jetmap() -> float:
        began = perf_counter()
        values = await cluster.map(tasks.risky, items, return_exceptions=True)
        took = perf_counter() - began
        failed = {v.index: v.kind for v in values if isinstance(v, ItemError)}
        if failed != {RAISING: "raised", **dict.fromkeys(KILLING, "lost")}:
            raise AssertionError(f"failed: {failed}")
        return took

    times, kept = [], []
    for _ in range(run.runs):
        times.append(await jetmap())
        kept.append(float(await asyncio.to_thread(_kept, items, run.cores)))
    return [
        Row(
            "crashes",
            f"{ITEMS:,} items of 0.25 ms, 1 raises, 3 kill their process; seconds",
            baseline=f"{median(kept):.0f} of {good:,} kept, and broken",
            jetmap=f"{good:,} of {good:,} kept in {seconds(median(times))}",
            figure=median(times),
            target=Target("at most", 1, " s"),
            samples={"jetmap": times, "kept": kept},
        )
    ]


def _kept(items: list[int], cores: int) -> int:
    """Count the good results of a process pool."""
    # (Spawned: this process has threads and an event loop.)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        futures: list[Future[int]] = []
        try:
            futures += (pool.submit(tasks.risky, item) for item in items)
        except BrokenExecutor:
            pass  # It broke while it was given the items; what it took is counted.
        return sum(future.exception() is None for future in futures)
