"""Rows of a one-item map's wait while others keep every core busy, all in their own processes."""

from __future__ import annotations

from contextlib import AsyncExitStack

from . import work
from .callers import caller
from .measure import quantile
from .run import Run
from .table import Row, Target, seconds

CHUNK = 0.05
LOAD_ITEMS = 100_000
PROBES = 400


async def fairness(run: Run) -> list[Row]:
    """One-item maps: idle, beside a map of 100,000 items of 1.5 ms, and beside four of them."""
    idle = await _probe(run, 0)
    rows = []
    for loads in (1, 4):
        beside = await _probe(run, loads)
        for name, share, chunks in (("p50", 0.5, 1), ("p99", 0.99, 2)):
            before, after = quantile(idle, share), quantile(beside, share)
            rows.append(
                Row(
                    "fairness",
                    f"one item beside {loads} big map{'s' * (loads > 1)}, {name} over idle, chunks",
                    baseline=f"{seconds(before)} (idle)",
                    jetmap=seconds(after),
                    figure=(after - before) / CHUNK,
                    target=Target("at most", chunks),
                    samples={"idle": idle, "jetmap": beside} if name == "p50" else {},
                )
            )
    return rows


async def _probe(run: Run, loads: int) -> list[float]:
    """Times of one-item maps beside ``loads`` big ones, in seconds."""
    await run.cluster()  # holds the cluster, so that callers only join
    turns = run.work.equal(1, work.STEADY)[0]
    async with AsyncExitStack() as stack:
        for _ in range(loads):
            load = await stack.enter_async_context(caller("load", LOAD_ITEMS, turns))
            if await load.answer() != "running":
                raise AssertionError("the load ended before it was measured against")
        probe = await stack.enter_async_context(caller("probe", run.scaled(PROBES)))
        times: list[float] = await probe.answer()
        return times
