"""Rows of ``Cluster.map`` beside a process pool in the same caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from statistics import median
from time import perf_counter

from . import tasks, work
from .measure import Measure, interleaved, median_ratio
from .pool import Function, best_chunksize, serially, time_map, time_single
from .run import Run
from .table import Row, Target, seconds


async def steady(run: Run) -> list[Row]:
    """2,000 items of 1.5 ms."""
    items = run.work.equal(run.scaled(2_000), work.STEADY)
    title = f"{len(items):,} items of 1.5 ms, share of ideal"
    return [await _map_row(run, "steady", title, tasks.even, items, Target("at least", 0.98))]


async def uneven(run: Run) -> list[Row]:
    """400 items, lognormal, mean 6 ms."""
    items = run.work.lognormal(run.scaled(400), work.UNEVEN)
    title = f"{len(items):,} items, lognormal, mean 6 ms, share of ideal"
    row = _map_row(run, "uneven", title, tasks.uneven, items, Target("at least", 1.0), better=True)
    return [await row]


async def tiny(run: Run) -> list[Row]:
    """20,000 items of 15 µs."""
    items = run.work.equal(run.scaled(20_000), work.TINY)
    title = f"{len(items):,} items of 15 µs, share of ideal"
    return [await _map_row(run, "tiny", title, tasks.tiny, items, Target("at least", 0.88))]


async def prior(run: Run) -> list[Row]:
    """64 primes near 10^11, each time after a thousand small numbers."""
    items = work.primes(run.scaled(64), 10**11)
    cluster = await run.cluster()

    async def cheap_calls() -> None:
        await cluster.map(tasks.has_no_divisor, range(1000))

    title = f"{len(items):,} primes near 10^11 after range(1000), share of ideal"
    target = Target("at least", 0.95)
    return [
        await _map_row(
            run,
            "prior",
            title,
            tasks.has_no_divisor,
            items,
            target,
            better=True,
            before=cheap_calls,
        )
    ]


async def heavy(run: Run) -> list[Row]:
    """200 items, Pareto, with a long one early or last."""
    rows, count = [], run.scaled(200)
    for place, long_at in (("early", count // 20), ("last", count - 1)):
        items = run.work.pareto(count, work.HEAVY, long_at=long_at)
        title = f"{len(items):,} items, Pareto, a long one {place}, share of ideal"
        target = Target("at least", 0.95)
        rows.append(
            await _map_row(run, f"heavy-{place}", title, tasks.heavy, items, target, better=True)
        )
    return rows


async def one(run: Run) -> list[Row]:
    """One empty item."""
    cluster, pool = await run.cluster(), run.pool
    calls = run.scaled(400)

    async def blocking() -> float:
        return await asyncio.to_thread(time_single, pool, tasks.nothing, calls)

    async def awaited() -> float:
        loop, times = asyncio.get_running_loop(), []
        for n in range(calls):
            began = perf_counter()
            value = await loop.run_in_executor(pool, tasks.nothing, n)
            times.append(perf_counter() - began)
            if value != n:
                raise AssertionError(f"{value} for {n}")
        return median(times)

    async def jetmap_calls() -> float:
        times = []
        for n in range(calls):
            began = perf_counter()
            values = await cluster.map(tasks.nothing, [n])
            times.append(perf_counter() - began)
            if values != [n]:
                raise AssertionError(f"{values} for {[n]}")
        return median(times)

    contenders = {"pool": awaited, "blocking": blocking, "jetmap": jetmap_calls}
    for measure in contenders.values():
        await measure()
    samples = await interleaved(run.runs, contenders)
    return [
        Row(
            "one",
            "one empty item, p50",
            aside=f"{seconds(median(samples['blocking']))} (blocking)",
            baseline=seconds(median(samples["pool"])),
            jetmap=seconds(median(samples["jetmap"])),
            figure=median_ratio(samples["jetmap"], samples["pool"]),
            target=Target("at most", 3),
            samples=samples,
        )
    ]


async def _map_row(
    run: Run,
    name: str,
    title: str,
    f: Function,
    items: Sequence[int],
    target: Target,
    *,
    better: bool = False,
    before: Callable[[], Awaitable[None]] | None = None,
) -> Row:
    """Serial, plain pool, tuned pool and jetmap in turns; better: against the better pool.
    before: awaited each time before jetmap is measured."""
    cluster, pool, cores = await run.cluster(), run.pool, run.cores
    loop = asyncio.get_running_loop()
    size = await asyncio.to_thread(best_chunksize, pool, f, items, cores)
    expected = await loop.run_in_executor(pool, _values, f, items)

    async def serial() -> float:
        return await loop.run_in_executor(pool, serially, f, items)

    async def pooled(chunksize: int) -> float:
        return await asyncio.to_thread(time_map, pool, f, items, chunksize)

    async def jetmap() -> float:
        if before is not None:
            await before()
        began = perf_counter()
        values = await cluster.map(f, items)
        took = perf_counter() - began
        if values != expected:
            raise AssertionError("jetmap's values differ from [f(x) for x in items]")
        return took

    await jetmap()
    contenders: dict[str, Measure] = {
        "serial": serial,
        "tuned": partial(pooled, size),
        "jetmap": jetmap,
    }
    if size != 1:
        contenders["plain"] = partial(pooled, 1)
    samples = await interleaved(run.runs, contenders)
    plain = samples.get("plain", samples["tuned"])
    baseline = min(samples["tuned"], plain, key=median) if better else samples["tuned"]

    def share(times: Sequence[float]) -> str:
        return f"{median_ratio(samples['serial'], times) / cores:.3f}"

    return Row(
        name,
        title,
        aside=f"{share(plain)} (chunksize 1)",
        baseline=f"{share(baseline)} (chunks of {size if baseline is samples['tuned'] else 1})",
        jetmap=f"{share(samples['jetmap'])} ({seconds(median(samples['jetmap']))})",
        figure=median_ratio(baseline, samples["jetmap"]),
        target=target,
        samples=samples,
    )


def _values(f: Function, items: Sequence[int]) -> list[int]:
    return [f(item) for item in items]
