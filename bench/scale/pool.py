"""A pool to measure: servers, agents with timer workers, and the dispatcher of this process."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from deployments import Servers
from jetmap.dispatch.dispatcher import Dispatcher, DispatchOptions
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.sources import RawItems
from jetmap.nats.connection import Connection
from jetmap.nats.server import NatsServer
from jetmap.settings import Settings
from proxy import proxy

FUNCTION = "double"  # The function of the timer workers.
PROCESS_CLOCK = 2  # Linux's number for the time that all threads of a process have run.
PARTIES = ("server", "dispatcher", "agents")


class Bench:
    """Servers, agents and a dispatcher; this process is the dispatcher's."""

    def __init__(self, servers: list[int], url: str, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.url = url
        self.agents: list[int] = []
        self._servers = servers

    def cpu(self) -> dict[str, float]:
        """Return the processor seconds of each party so far."""
        groups = self._servers, [os.getpid()], self.agents
        return {party: sum(map(_used, pids)) for party, pids in zip(PARTIES, groups, strict=True)}

    def cpu_of_servers(self) -> list[float]:
        return [_used(pid) for pid in self._servers]

    @asynccontextmanager
    async def joined(self, count: int, cores: int, *, shards: int = 0) -> AsyncIterator[None]:
        """Start agents in a process of their own."""
        async with self._process("agents", count, cores, shards) as pid:
            self.agents.append(pid)
            yield

    @asynccontextmanager
    async def announced(
        self, agents: int, cores: int, functions: int, state: str
    ) -> AsyncIterator[None]:
        """Start what announces made-up agents; wait until all are in the roster."""
        async with self._process("announcing", agents, cores, functions, state):
            await self.are_ready(agents * cores)
            yield

    @asynccontextmanager
    async def _process(self, module: str, *arguments: object) -> AsyncIterator[int]:
        command = ["-m", f"bench.scale.{module}", self.url, *map(str, arguments)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None and process.stdin is not None
        try:
            if await process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"bench.scale.{module} could not start")
            yield process.pid
        finally:
            process.stdin.close()
            await process.wait()

    async def caller(self, stack: AsyncExitStack) -> Dispatcher:
        """Start one more dispatcher in this process, with a connection of its own."""
        connection = await Connection.open(self.url.split(","), name="caller", timeout=20)
        stack.push_async_callback(connection.close)
        options = DispatchOptions(Settings(max_open_maps=100_000), announce_seconds=30.0)
        dispatcher = Dispatcher(connection, options)
        await dispatcher.start()
        stack.push_async_callback(dispatcher.close)
        return dispatcher

    async def are_ready(self, cores: int) -> None:
        roster = self.dispatcher.roster
        await self.dispatcher.agents.wait_for(
            lambda: sum(agent.ready for agent in roster.agents) == cores, 120
        )

    async def map(self, items: list[bytes], dispatcher: Dispatcher | None = None) -> float:
        """Run a map; return its seconds until the first outcomes."""
        began, first, count = perf_counter(), 0.0, 0
        spec = MapSpec(function=FUNCTION, format="msgpack")
        run = await (dispatcher or self.dispatcher).open(spec, RawItems(items, "msgpack"))
        async with run:
            async for batch in run:
                first = first or perf_counter() - began
                count += batch.count
        if count != len(items):
            raise AssertionError(f"{count} outcomes for {len(items)} items")
        return first


@asynccontextmanager
async def bench(
    agents: int,
    cores: int,
    delay: float = 0.0,
    *,
    servers: int = 1,
    shards: int = 0,
    copies: int = 0,
) -> AsyncIterator[Bench]:
    """Start everything. delay: seconds from the agents to the server, one way."""
    async with AsyncExitStack() as stack:
        if servers == 1:
            server = NatsServer()
            await server.start()
            stack.push_async_callback(server.stop)
            assert server.pid is not None
            pids, url, port = [server.pid], server.url, server.port
        else:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="jetmap-bench-"))
            cluster = Servers(Path(place))
            stack.callback(cluster.stop)
            url, port = ",".join(cluster.cluster(servers)), 0
            pids = cluster.pids
        line = await stack.enter_async_context(proxy(port, delay)) if delay else None
        connection = await Connection.open(url.split(","), name="dispatcher", timeout=20)
        settings = Settings(max_open_maps=100_000, work_replicas=copies)
        options = DispatchOptions(settings, announce_seconds=30.0)
        dispatcher = Dispatcher(connection, options)
        await dispatcher.start()
        there = Bench(pids, line.url if line is not None else url, dispatcher)
        async with there.joined(agents, cores, shards=shards):
            await there.are_ready(agents * cores)
            yield there
            await dispatcher.close()
            await connection.close()


def _used(pid: int) -> float:
    if sys.platform == "linux":
        # The processor clock of another process, in nanoseconds; ``cpu_times`` counts hundredths.
        return time.clock_gettime((~pid << 3) | PROCESS_CLOCK)
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
