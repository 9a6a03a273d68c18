"""Rows of ``Executor`` beside a process pool in the same caller."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor as AnyExecutor
from concurrent.futures import wait
from functools import partial
from statistics import median
from time import perf_counter

from jetmap import Executor

from . import tasks, work
from .measure import Measure, interleaved, median_ratio
from .pool import WARM_UP, Function, best_chunksize, time_map, time_single
from .run import Run
from .table import Row, Target, seconds

# Seconds of one submitted call, and the number of those that are outstanding.
SUBMITS = ((0.0, 4_000), (0.0002, 4_000), (0.002, 1_000), (0.01, 200))


async def executor(run: Run) -> list[Row]:
    """``Executor.map`` and ``submit``, against the pool's, tuned by hand where it can be."""
    ours = await asyncio.to_thread(_started, run.cores)
    try:
        lists = (
            ("steady", tasks.even, run.work.equal(run.scaled(2_000), work.STEADY)),
            ("uneven", tasks.uneven, run.work.lognormal(run.scaled(400), work.UNEVEN)),
            ("tiny", tasks.tiny, run.work.equal(run.scaled(20_000), work.TINY)),
        )
        rows = [await _map_row(run, ours, name, f, items) for name, f, items in lists]
        rows += [await _submit_row(run, ours, each, run.scaled(count)) for each, count in SUBMITS]
        return [*rows, await _one_row(run, ours)]
    finally:
        await asyncio.to_thread(ours.shutdown)


def _started(cores: int) -> Executor:
    ours = Executor(cores)
    wait([ours.submit(tasks.wait, WARM_UP) for _ in range(cores)])
    return ours


async def _map_row(run: Run, ours: Executor, name: str, f: Function, items: Sequence[int]) -> Row:
    size = await asyncio.to_thread(best_chunksize, run.pool, f, items, run.cores)

    async def pooled(chunksize: int) -> float:
        return await asyncio.to_thread(time_map, run.pool, f, items, chunksize)

    async def jetmap() -> float:
        return await asyncio.to_thread(time_map, ours, f, items, 1)

    await jetmap()
    contenders: dict[str, Measure] = {"tuned": partial(pooled, size), "jetmap": jetmap}
    if size != 1:
        contenders["plain"] = partial(pooled, 1)
    samples = await interleaved(run.runs, contenders)
    plain = samples.get("plain", samples["tuned"])
    better = min(samples["tuned"], plain, key=median)
    return Row(
        f"executor-{name}",
        f"Executor.map, {len(items):,} {name} items",
        aside=f"{seconds(median(plain))} (chunksize 1)",
        baseline=f"{seconds(median(better))} (the better of 1 and {size})",
        jetmap=seconds(median(samples["jetmap"])),
        figure=median_ratio(better, samples["jetmap"]),
        target=Target("at least", 1.0 if name == "uneven" else 0.97),
        samples=samples,
    )


def time_submits(pool: AnyExecutor, turns: int, count: int) -> float:
    """Time ``count`` calls that are all submitted before the first is waited for, in seconds."""
    began = perf_counter()
    futures = [pool.submit(tasks.submitted, turns) for _ in range(count)]
    for future in futures:
        future.result()
    return perf_counter() - began


async def _submit_row(run: Run, ours: Executor, each: float, count: int) -> Row:
    turns = max(1, round(run.work.speed * each))

    contenders: dict[str, Measure] = {
        "pool": partial(asyncio.to_thread, time_submits, run.pool, turns, count),
        "jetmap": partial(asyncio.to_thread, time_submits, ours, turns, count),
    }
    await contenders["jetmap"]()
    samples = await interleaved(run.runs, contenders)
    return Row(
        f"submits-{each * 1000:g}ms",
        f"{count:,} submits of {each * 1000:g} ms outstanding",
        baseline=seconds(median(samples["pool"])),
        jetmap=seconds(median(samples["jetmap"])),
        figure=median_ratio(samples["pool"], samples["jetmap"]),
        target=Target("at least", 0.95),
        samples=samples,
    )


async def _one_row(run: Run, ours: Executor) -> Row:
    calls = run.scaled(400)
    contenders: dict[str, Measure] = {
        "pool": partial(asyncio.to_thread, time_single, run.pool, tasks.nothing, calls),
        "jetmap": partial(asyncio.to_thread, time_single, ours, tasks.nothing, calls),
    }
    await contenders["jetmap"]()
    samples = await interleaved(run.runs, contenders)
    return Row(
        "submit-one",
        "one submit after the other, ms each",
        baseline=seconds(median(samples["pool"])),
        jetmap=seconds(median(samples["jetmap"])),
        figure=median(samples["jetmap"]) * 1000,
        target=Target("at most", 0.7, " ms"),
        samples=samples,
    )
