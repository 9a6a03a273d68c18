"""Callers in processes of their own: ``python -m bench.helpers start|stream|load|probe …``.

Each prints one line of JSON for each answer and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

import msgspec
import uvloop

from jetmap import Cluster

from . import tasks
from .servers import peak_memory

PAUSE = 0.02


def _say(answer: object) -> None:
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


def _cluster(pool: str = "default") -> Cluster:
    return Cluster(tasks=["bench.tasks"], pool=pool)


async def start(pool: str) -> None:
    """Time from ``Cluster()`` to the first result, then from there to the end of the input."""
    began = perf_counter()
    async with _cluster(pool) as cluster:
        await cluster.map(tasks.nothing, [1])
        _say(perf_counter() - began)
        await _end_of_input()


async def stream(counts: Sequence[int]) -> None:
    """Stream the given numbers of items in turn; print the peak memory after each, in bytes."""
    async with _cluster() as cluster:
        for count in counts:
            began, seen, total = perf_counter(), 0, 0
            async with cluster.stream(tasks.nothing, iter(range(count))) as outcomes:
                async for outcome in outcomes:
                    seen += 1
                    total += outcome.value
            if (seen, total) != (count, count * (count - 1) // 2):
                raise AssertionError(f"{seen} outcomes with the sum {total} of {count} items")
            _say({"peak": peak_memory(), "seconds": perf_counter() - began})


async def load(count: int, turns: int) -> None:
    """Keep one big map going; print a line when its first outcome is there."""
    async with _cluster() as cluster:
        items = [turns] * count
        async with cluster.stream(tasks.even, items) as outcomes:
            running = False
            async for outcome in outcomes:
                outcome.value  # noqa: B018 - raises if the item failed
                if not running:
                    running = True
                    _say("running")
    _say("done")


async def probe(count: int) -> None:
    """Time ``count`` one-item maps, with random pauses of 20 ms on average between them."""
    draw, times = random.Random(7), []
    async with _cluster() as cluster:
        for n in range(count):
            await asyncio.sleep(draw.expovariate(1 / PAUSE))
            began = perf_counter()
            values = await cluster.map(tasks.nothing, [n])
            times.append(perf_counter() - began)
            if values != [n]:
                raise AssertionError(f"{values} for {[n]}")
    _say(times)


async def _end_of_input() -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(0)


async def _while_wanted(work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` until it ends or the input does."""
    main = asyncio.ensure_future(work())
    watch = asyncio.ensure_future(_end_of_input())
    await asyncio.wait([main, watch], return_when=asyncio.FIRST_COMPLETED)
    for task in (main, watch):
        task.cancel()
    results = await asyncio.gather(main, watch, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.helpers")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start").add_argument("pool")
    commands.add_parser("stream").add_argument("counts", type=int, nargs="+")
    loads = commands.add_parser("load")
    loads.add_argument("count", type=int)
    loads.add_argument("turns", type=int)
    commands.add_parser("probe").add_argument("count", type=int)
    chosen = parser.parse_args()
    work: dict[str, Callable[[], Awaitable[None]]] = {
        "start": lambda: start(chosen.pool),
        "stream": lambda: stream(chosen.counts),
        "load": lambda: load(chosen.count, chosen.turns),
        "probe": lambda: probe(chosen.count),
    }
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_while_wanted(work[chosen.command]))


if __name__ == "__main__":
    main()
