"""Rows of bytes there and back: items of 1 kB, 100 kB and 8 MB beside a process pool.

Time is noisy on a busy machine, so each figure has the CPU seconds of all processes beside it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from time import perf_counter

import psutil

from jetmap import Cluster

from . import tasks
from .measure import Measure, interleaved, median_ratio
from .run import Run
from .table import Row, Target, seconds

# Bytes of an item, their number, and the time that is wanted, as a share of the pool's.
SIZES = {
    "1 kB": (1_000, 10_000, 1.0),
    "100 kB": (100_000, 2_000, 1.2),
    "8 MB": (8_000_000, 64, 0.9),
}
CHUNKS = 16  # Chunks a core for the pool: few enough to cost little, many enough to share.


async def payloads(run: Run) -> list[Row]:
    """Bytes there and back: 10,000 of 1 kB, 2,000 of 100 kB and 64 of 8 MB."""
    cluster = await run.cluster()
    return [
        await _row(run, cluster, name, size, run.scaled(count), wanted)
        for name, (size, count, wanted) in SIZES.items()
    ]


async def _row(run: Run, cluster: Cluster, name: str, size: int, count: int, wanted: float) -> Row:
    # In a thread: whoever holds a chunk of this caller must hear from it every few seconds.
    items = await asyncio.to_thread(lambda: [os.urandom(size) for _ in range(count)])
    chunksize = max(1, count // (run.cores * CHUNKS))
    spent: dict[str, list[float]] = {"pool": [], "jetmap": []}

    def pooled() -> list[bytes]:
        return list(run.pool.map(tasks.send_back, items, chunksize=chunksize))

    async def pool() -> list[bytes]:
        return await asyncio.to_thread(pooled)

    async def jetmap() -> list[bytes]:
        return await cluster.map(tasks.send_back, items)

    def timed(who: str, act: Callable[[], Awaitable[list[bytes]]]) -> Measure:
        async def measure() -> float:
            before, began = _cpu(cluster, run.pool), perf_counter()
            values = await act()
            took = perf_counter() - began
            spent[who].append(_cpu(cluster, run.pool) - before)
            if values != items:
                raise AssertionError(f"{who}: other bytes came back")
            return took

        return measure

    contenders = {"pool": timed("pool", pool), "jetmap": timed("jetmap", jetmap)}
    for measure in contenders.values():
        await measure()
    for figures in spent.values():
        figures.clear()
    samples = await interleaved(run.runs, contenders)

    def shown(who: str) -> str:
        return f"{seconds(median(samples[who]))} ({median(spent[who]):.2f} s of CPU)"

    return Row(
        f"payload-{name.replace(' ', '')}",
        f"{count:,} items of {name} there and back",
        aside=f"{median_ratio(spent['jetmap'], spent['pool']):.2f} times the CPU",
        baseline=shown("pool"),
        jetmap=shown("jetmap"),
        figure=median_ratio(samples["jetmap"], samples["pool"]),
        target=Target("at most", wanted),
        samples=samples | {f"cpu of {who}": figures for who, figures in spent.items()},
    )


def _cpu(cluster: Cluster, pool: ProcessPoolExecutor) -> float:
    """Sum the CPU seconds of this process, the pool, and the keeper with all that it started."""
    keepers = [psutil.Process(presence.pid) for presence in cluster.workers]
    found = {psutil.Process(): None, **dict.fromkeys(psutil.Process().children(recursive=True))}
    for keeper in keepers:
        found |= dict.fromkeys([keeper, *keeper.children(recursive=True)])
    times = [process.cpu_times() for process in found]
    return sum(each.user + each.system for each in times)
