"""The calls that small maps of a batch function take."""

from __future__ import annotations

import asyncio

from . import batch_tasks
from .run import Run
from .table import Row, Target

MAPS = 64


async def batches(run: Run) -> list[Row]:
    """Maps of one item each, all at once: each value names the call that it comes from."""
    cluster = await run.cluster()
    calls: list[float] = []
    for _ in range(run.runs):
        maps = [cluster.map(batch_tasks.batched, [n]) for n in range(MAPS)]
        calls.append(len({value for values in await asyncio.gather(*maps) for value in values}))
    most = max(calls)
    row = Row(
        "batches",
        f"{MAPS} maps of one item at once, batch={MAPS}",
        baseline=f"{MAPS} calls",
        jetmap=f"{most:.0f} calls",
        figure=most,
        target=Target("at most", 4, " calls"),
        samples={"calls": calls},
    )
    return [row]
