"""The baseline: the standard library's process pool, plain and tuned by hand."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from statistics import median
from time import perf_counter, sleep

Function = Callable[[int], int]
WARM_UP = 0.2


def started_pool(cores: int) -> ProcessPoolExecutor:
    """Start a pool of ``cores`` processes and wait until all are up.

    Called before the process has threads or an event loop, so forking is safe.
    """
    pool = ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork"))
    wait([pool.submit(sleep, WARM_UP) for _ in range(cores)])
    return pool


def serially(f: Function, items: Sequence[int]) -> float:
    """Time all items on one core; called in one process of the pool."""
    began = perf_counter()
    for item in items:
        f(item)
    return perf_counter() - began


def time_map(pool: Executor, f: Function, items: Sequence[int], chunksize: int) -> float:
    """Time a map, from the list to the list of values, in seconds."""
    began = perf_counter()
    values = list(pool.map(f, items, chunksize=chunksize))
    took = perf_counter() - began
    if len(values) != len(items):
        raise AssertionError(f"{len(values)} values for {len(items)} items")
    return took


def time_single(pool: Executor, f: Function, calls: int) -> float:
    """The median of ``calls`` calls with one item each, one after the other, in seconds."""
    times = []
    for n in range(calls):
        began = perf_counter()
        value = pool.submit(f, n).result()
        times.append(perf_counter() - began)
        if value != n:
            raise AssertionError(f"{value} for {n}")
    return median(times)


def best_chunksize(
    pool: ProcessPoolExecutor, f: Function, items: Sequence[int], cores: int, *, tries: int = 2
) -> int:
    """Find the fastest of a few chunk sizes, each tried ``tries`` times.

    From a few chunks a core to one chunk a core; a size of 1 is among them.
    """
    sizes = sorted({max(1, len(items) // (cores * parts)) for parts in (1, 4, 16, 64)})
    sizes = sorted({1, *sizes}) if len(items) <= 5000 else sizes
    return min(sizes, key=lambda size: min(time_map(pool, f, items, size) for _ in range(tries)))
