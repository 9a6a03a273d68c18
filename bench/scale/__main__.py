"""``python -m bench.scale``: pools of 1 to 1,000 agents, far hosts, long lists, many open maps,
hosts that join, and the shards of a pool on three servers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import msgspec
import uvloop

from jetmap.wire.messages import encode
from jetmap.wire.timing import BEAT

from .figures import Figure, markdown, plot, report
from .pool import PARTIES, bench

CHUNK_SECONDS = 0.05
LEAST_ITEMS, LEAST_MAPS = 300_000, 300  # In one measurement; shorter ones are repeated.


class Size(msgspec.Struct, frozen=True):
    """The extent of a run. rate: chunks a second, at most, which sets how long items take."""

    agents: list[int]
    cores: int
    seconds: float
    rate: float
    items: list[int]
    maps: list[int]
    delays: list[float]
    shards: list[int]
    joining: tuple[int, int] = (4, 16)


FULL = Size(
    [1, 10, 100, 300, 1000],
    1,
    10.0,
    200.0,
    [10_000, 100_000, 1_000_000, 10_000_000],
    [1, 10, 100, 1000, 10_000],
    [0.0, 0.005, 0.01, 0.02],
    [1, 3],
)
QUICK = Size([1, 10], 1, 1.0, 100.0, [1000, 10_000], [1, 10], [0.0, 0.01], [1, 3])


async def pools(size: Size) -> list[Figure]:
    """Measure pools of growing size: idle, and with a steady number of chunks a second."""
    figures = []
    for agents in size.agents:
        cores = agents * size.cores
        async with bench(agents, size.cores) as there:
            item = max(CHUNK_SECONDS, cores / size.rate)
            await there.map([encode(int(item * 1e6))] * cores)
            await asyncio.sleep(min(5.0, size.seconds))
            began, before = perf_counter(), there.cpu()
            await asyncio.sleep(size.seconds)
            idle = _less(there.cpu(), before, perf_counter() - began)
            figures.append(
                Figure("idle", agents, {name: 100 * share for name, share in idle.items()})
            )
            count = max(cores, round(cores * size.seconds / item))
            chunks = there.dispatcher.stats.chunks
            began, before = perf_counter(), there.cpu()
            first = await there.map([encode(int(item * 1e6))] * count)
            took, used = perf_counter() - began, there.cpu()
            chunks = there.dispatcher.stats.chunks - chunks
            each = {
                name: 1e6 * max(0.0, used[name] - before[name] - idle[name] * took) / chunks
                for name in PARTIES
            }
            share = count * item / cores / took
            more = {"chunks": float(chunks), "share": share, "first": first - item}
            figures.append(Figure("chunk", agents, each | more))
            report(figures[-2:])
    return figures


async def announcements(size: Size) -> list[Figure]:
    """Measure what the announcements of agents with 64 cores and 50 functions cost a dispatcher."""
    figures = []
    for state in ("idle", "busy"):
        for agents in size.agents:
            async with bench(0, 1) as there, there.announced(agents, 64, 50, state):
                await asyncio.sleep(BEAT)  # All have been announced again.
                began, before = perf_counter(), there.cpu()
                await asyncio.sleep(size.seconds)
                took = perf_counter() - began
                used = _less(there.cpu(), before, took)["dispatcher"]
                if (heard := len(there.dispatcher.roster.agents)) != agents:
                    raise AssertionError(f"{agents - heard} agents seem silent")
                values = {"dispatcher": 100 * used, "each": 1e6 * used / agents * BEAT}
                figures.append(Figure(f"announced {state}", agents, values))
                report(figures[-1:])
    return figures


async def lists(size: Size) -> list[Figure]:
    """Measure long lists of items that take no time: what an item costs each party."""
    figures = []
    async with bench(2, 2) as there:
        await there.map([encode(0)] * 1000)
        for count in size.items:
            rounds = max(1, LEAST_ITEMS // count)
            items = [encode(0)] * count
            began, before = perf_counter(), there.cpu()
            for _ in range(rounds):
                await there.map(items)
            took, used = (perf_counter() - began) / rounds, there.cpu()
            each = {name: 1e6 * (used[name] - before[name]) / count / rounds for name in PARTIES}
            figures.append(Figure("items", count, each | {"seconds": took}))
            report(figures[-1:])
    return figures


async def open_maps(size: Size) -> list[Figure]:
    """Measure many maps of ten items of 1 ms, open at once."""
    figures = []
    async with bench(4, 4) as there:
        await there.map([encode(1000)] * 1000)
        for count in size.maps:
            rounds = max(1, LEAST_MAPS // count)
            began, before = perf_counter(), there.cpu()
            for _ in range(rounds):
                await asyncio.gather(*[there.map([encode(1000)] * 10) for _ in range(count)])
            took, used = (perf_counter() - began) / rounds, there.cpu()
            each = {name: 1e6 * (used[name] - before[name]) / count / rounds for name in PARTIES}
            figures.append(Figure("maps", count, each | {"seconds": took}))
            report(figures[-1:])
    return figures


async def far(size: Size) -> list[Figure]:
    """Measure hosts behind a line that takes its time: their share of the ideal."""
    figures = []
    works = {"equal": [1500] * 2000, "tiny": [15] * 20_000, "single": [60_000] * 60}
    for delay in size.delays:
        shares = {}
        for name, micros in works.items():
            # Each in a pool of its own: timer workers do not give back what was cut by a bad guess.
            async with bench(1, 2, delay) as there:
                await asyncio.sleep(1.0)  # The agent measures its distance.
                items = [encode(micro) for micro in micros]
                await there.map(items)
                began = perf_counter()
                await there.map(items)
                shares[name] = sum(micros) * 1e-6 / 2 / (perf_counter() - began)
        figures.append(Figure("far", round(2000 * delay, 3), shares))
        report(figures[-1:])
    return figures


async def joining(size: Size) -> list[Figure]:
    """Measure cores that join, and the first map of a pool beside the next ones."""
    figures = []
    agents, cores = size.joining
    count, item = agents * cores, 5.0 if size is QUICK else 60.0
    async with bench(agents, cores) as there:
        shares = []
        for _ in range(3):
            began = perf_counter()
            await there.map([encode(250_000)] * (20 * count))
            shares.append(20 * 0.25 / (perf_counter() - began))
        running = asyncio.ensure_future(there.map([encode(int(item * 1e6))] * (3 * count)))
        await asyncio.sleep(2.0)
        async with there.joined(agents, cores):
            await there.are_ready(2 * count)
            ready = perf_counter()
            dispatcher, roster = there.dispatcher, there.dispatcher.roster
            flights = [run.ledger.flights for run in dispatcher.maps]
            await dispatcher.agents.wait_for(lambda: sum(map(len, flights)) >= 2 * count, 60)
            sent = perf_counter()
            await dispatcher.agents.wait_for(
                lambda: sum(agent.busy for agent in roster.agents) == 2 * count, 60
            )
            busy = perf_counter()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        values = {"first map": shares[0], "next": shares[1], "then": shares[2]}
        values |= {"sent": sent - ready, "busy": busy - ready}
        figures.append(Figure("joining", count, values))
        report(figures)
    return figures


async def shards(size: Size) -> list[Figure]:
    """Measure what a chunk costs each of three servers, with many maps of several callers."""
    figures = []
    agents, cores, maps = 24, 4, 24
    count = max(1, round(agents * cores * size.seconds / CHUNK_SECONDS / maps))
    items = [encode(int(CHUNK_SECONDS * 1e6))] * count
    for number, copies in [(1, 3), *((number, 1) for number in size.shards)]:
        started = bench(agents, cores, servers=3, shards=number, copies=copies)
        async with started as there, AsyncExitStack() as stack:
            callers = [await there.caller(stack) for _ in range(6)]
            await there.map([encode(int(CHUNK_SECONDS * 1e6))] * agents * cores)
            await asyncio.sleep(3.0)
            began, before = perf_counter(), there.cpu_of_servers()
            await asyncio.sleep(size.seconds)
            idle = [
                (now - then) / (perf_counter() - began)
                for now, then in zip(there.cpu_of_servers(), before, strict=True)
            ]
            before, began, others = there.cpu_of_servers(), perf_counter(), there.cpu()
            await asyncio.gather(
                *[there.map(items, callers[n % len(callers)]) for n in range(maps)]
            )
            took, used, others_used = perf_counter() - began, there.cpu_of_servers(), there.cpu()
            chunks = sum(caller.stats.chunks for caller in callers)
            spent = [now - then for now, then in zip(used, before, strict=True)]
            each = sorted(1e6 * seconds / chunks for seconds in spent)
            values = {"copies": float(copies)}
            values |= {f"server {n}": micros for n, micros in enumerate(reversed(each), 1)}
            values["busiest"] = max(each) / sum(each)
            values |= {p: 1e6 * (others_used[p] - others[p]) / chunks for p in PARTIES[1:]}
            values |= {"idle": 100 * sum(idle), "chunks": float(chunks), "took": took}
            figures.append(Figure("shards", number, values))
            report(figures[-1:])
    return figures


ROWS: dict[str, Callable[[Size], Awaitable[list[Figure]]]] = {
    "pools": pools,
    "announcements": announcements,
    "lists": lists,
    "maps": open_maps,
    "far": far,
    "joining": joining,
    "shards": shards,
}


def _less(after: dict[str, float], before: dict[str, float], seconds: float) -> dict[str, float]:
    return {name: (after[name] - before[name]) / seconds for name in PARTIES}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; else all")
    parser.add_argument("--quick", action="store_true", help="small sizes: tries the bench itself")
    parser.add_argument("--agents", type=int, nargs="+", help="sizes of the pools")
    parser.add_argument("--items", type=int, nargs="+", help="lengths of lists")
    parser.add_argument("--maps", type=int, nargs="+", help="numbers of maps that are open at once")
    parser.add_argument("--shards", type=int, nargs="+", help="numbers of shards on three servers")
    parser.add_argument("--cores", type=int, help="cores of each agent (1)")
    parser.add_argument("--rate", type=float, help="chunks a second of a pool, at most (200)")
    parser.add_argument("--seconds", type=float, help="of each measurement of a pool (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw charts there")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.rows) - set(ROWS)):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    size = QUICK if chosen.quick else FULL
    given = {
        name: getattr(chosen, name)
        for name in ("agents", "cores", "rate", "seconds", "items", "maps", "shards")
    }
    given = {name: value for name, value in given.items() if value is not None}
    size = msgspec.structs.replace(size, **given)
    figures: list[Figure] = []

    async def measure() -> None:
        for row in chosen.rows or ROWS:
            figures.extend(await ROWS[row](size))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure())
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, timer workers\n")
    print(markdown(figures))
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    if chosen.plots:
        plot(figures, chosen.plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
