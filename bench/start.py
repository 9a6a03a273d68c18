"""Rows of the time from ``Cluster()`` to the first result, in a process of its own."""

from __future__ import annotations

import os
from statistics import median

from .callers import caller
from .run import Run
from .table import Row, Target, seconds


async def start(run: Run) -> list[Row]:
    """Measure a start from nothing, and beside a process that has its cluster already."""
    alone: list[float] = []
    beside: list[float] = []
    for number in range(run.runs):
        pool = f"bench-start-{os.getpid()}-{number}"  # a keeper that nobody has started yet
        async with caller("start", pool) as first:
            alone.append(await first.answer())
            async with caller("start", pool) as second:
                beside.append(await second.answer())
    return [
        _row("from Cluster() to the first result, alone", alone, 1.0),
        _row("from Cluster() to the first result, beside another", beside, 0.1),
    ]


def _row(work: str, times: list[float], limit: float) -> Row:
    return Row(
        "start",
        work,
        baseline="",
        jetmap=seconds(median(times)),
        figure=median(times),
        target=Target("at most", limit, " s"),
        samples={"jetmap": times},
    )
