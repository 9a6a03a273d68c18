"""The cost of watching: CPU with open dashboards, and with traces at 1 %, beside neither.

For each pair there are new servers, because two of them never cost quite the same: a `jetmap up`
that nobody watches, one with dashboards, one that traces. They compute in turns of a fraction of a
second, and the order of the turns is reversed each time, so that whatever else the machine does
disturbs all alike. During its turns, the CPU of all processes of a server is counted: gateway,
agent, workers, nats-server and their parent. What is left out: the browsers, the start, the first
maps, and the first view that each dashboard gets.

An item returns the CPU that it took itself. That is part of what an item costs alone, but it is
left out of the difference, because its noise is larger than all that watching can cost. So what
watching does to the speed of the items themselves, by sharing caches with them, is not seen.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import msgspec
import psutil

from . import tasks
from .run import Run
from .servers import PARTS, Server, cpu_seconds, gateway_server
from .table import Row, Target
from .wire import connect, exchange, request

PAIRS = 30
DASHBOARDS = 10
# Turns of a pair, maps of a turn, items of a map, seconds of an item.
TURNS, MAPS, ITEMS, SECONDS = 6, 4, 100, 0.0015
# Quantiles 0.975 of Student's t for few and for 30 pairs; conservative in between.
T_30, T_FEW = 2.045, 3.2
SAMPLED = f"00-{'0a' * 16}-{'0b' * 8}-01"
TRACED = {
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.01",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
}
# Seconds until the spans of the first maps are written, so that they are not counted.
WRITTEN = 1.5


@dataclass(frozen=True)
class Cost:
    """CPU seconds. total: of all processes; own: of the items themselves."""

    total: float
    own: float

    @property
    def overhead(self) -> float:
        return self.total - self.own

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.total + other.total, self.own + other.own)

    def __truediv__(self, count: int) -> Cost:
        return Cost(self.total / count, self.own / count)


Costs = Mapping[str, list[Cost]]


async def watching(run: Run) -> list[Row]:
    """Ten open dashboards, and traces of one map in a hundred, beside neither."""
    turns = max(2, run.scaled(TURNS))
    costs: dict[str, list[Cost]] = {"alone": [], "watched": [], "traced": []}
    for _ in range(max(3, run.scaled(PAIRS))):
        for name, cost in (await _pair(run, turns)).items():
            costs[name].append(cost)
    return [
        _row(f"{DASHBOARDS} open dashboards", costs, "watched"),
        _row("traces of 1 % of the maps", costs, "traced"),
    ]


async def _pair(run: Run, turns: int) -> dict[str, Cost]:
    """Compute in turns in a server that is watched, in one that traces, and in one that is left
    alone.
    """
    async with AsyncExitStack() as stack:
        servers = {
            "alone": await _server(stack, {}),
            "watched": await _server(stack, {}),
            "traced": await _server(stack, TRACED),
        }
        # Sampled as its caller wants: the gateway and the workers load the SDK.
        await _compute(run, servers["traced"], f"traceparent: {SAMPLED}\r\n")
        for server in servers.values():
            await _compute(run, server)
        await stack.enter_async_context(_dashboards(servers["watched"], DASHBOARDS))
        await asyncio.sleep(WRITTEN)
        costs = dict.fromkeys(servers, Cost(0.0, 0.0))
        for turn in range(turns):
            for name in servers if turn % 2 == 0 else reversed(servers):
                costs[name] += await _turn(run, servers[name])
    return {name: cost / (turns * MAPS * ITEMS) for name, cost in costs.items()}


async def _server(stack: AsyncExitStack, environment: Mapping[str, str]) -> Server:
    # There is one `jetmap up` in a directory.
    place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return await stack.enter_async_context(gateway_server(place, environment))


async def _turn(run: Run, server: Server) -> Cost:
    before = _cpu_seconds(server)
    own = await _compute(run, server)
    after = _cpu_seconds(server)
    if before.keys() != after.keys():
        raise RuntimeError("a process has ended or begun, and its CPU cannot be counted")
    return Cost(sum(after.values()) - sum(before.values()), own)


def _row(what: str, costs: Costs, name: str) -> Row:
    alone, pairs = costs["alone"], len(costs["alone"])
    whole = mean(cost.total for cost in alone)
    extra = [
        100 * (other.overhead - one.overhead) / whole
        for one, other in zip(alone, costs[name], strict=True)
    ]
    half = (T_30 if pairs >= PAIRS else T_FEW) * stdev(extra) / len(extra) ** 0.5
    micro = [
        f"{1e6 * mean(c.total for c in costs[key]):,.0f} µs, "
        f"{1e6 * mean(c.overhead for c in costs[key]):,.0f} of them jetmap's"
        for key in ("alone", name)
    ]
    return Row(
        "watching",
        f"CPU an item: {what}, {mean(extra):+.2f} % ± {half:.2f} (95 %, {pairs} pairs)",
        aside="",
        baseline=micro[0],
        jetmap=micro[1],
        figure=mean(extra) + half,
        target=Target("at most", 1, " %"),
        samples={
            f"{key}, {part}": [getattr(cost, part) for cost in costs[key]]
            for key in ("alone", name)
            for part in ("total", "overhead")
        },
    )


async def _compute(run: Run, server: Server, header: str = "") -> float:
    """Compute maps, and return the CPU seconds that their items took themselves."""
    items = run.work.equal(ITEMS, SECONDS)
    message = request(server.port, f"/map/{tasks.weighed.__name__}", msgspec.json.encode(items))
    message = message.replace(b"\r\n", f"\r\n{header}".encode(), 1)

    def compute() -> float:
        with connect(server.port) as connection:
            answers = [exchange(connection, message) for _ in range(MAPS)]
        return sum(sum(msgspec.json.decode(answer, type=list[float])) for answer in answers)

    return await asyncio.to_thread(compute)


def _cpu_seconds(server: Server) -> dict[int, float]:
    """Return the CPU seconds of each process of this `jetmap up`, with threads that have ended."""
    parent = psutil.Process(server.pid).parent()
    assert parent is not None
    found = [parent, *parent.children(recursive=True)]
    commands = " ".join(part for process in found for part in process.cmdline())
    assert all(part in commands for part in PARTS), commands
    return {p.pid: cpu_seconds(p.pid) for p in found}


@asynccontextmanager
async def _dashboards(server: Server, count: int) -> AsyncIterator[None]:
    """Keep the event streams of this many dashboards open, and read them."""
    writers: list[asyncio.StreamWriter] = []
    readers: list[asyncio.Task[None]] = []

    async def read(reader: asyncio.StreamReader) -> None:
        while await reader.read(1 << 16):
            pass

    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writers.append(writer)
            writer.write(b"GET /ui/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"event:")
            readers.append(asyncio.ensure_future(read(reader)))
        yield
    finally:
        for writer in writers:
            writer.close()
        await asyncio.gather(*readers, return_exceptions=True)
