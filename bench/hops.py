"""Show each hop of one empty item's way beside its floor: ``python -m bench.hops``.

A caller maps one item after the other on its embedded cluster. In turns with it, a bare chain of
the same shape passes a message on: a caller, a stream of the server, a process that pulls from it,
another one behind a pipe, and back. It has the same client, the same frames and the same event
loop, and decides nothing. All processes write the times at which they send and receive.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from time import monotonic_ns
from typing import Any

import msgspec
import psutil
import uvloop

from jetmap import Cluster
from jetmap.nats.broker import Message
from jetmap.nats.connection import Connection
from jetmap.nats.server import NatsServer
from jetmap.wire import frames

from . import tasks
from .measure import quantile
from .one import begin_pulls, pull
from .servers import ROOT

BATCH = 100  # Turns of one side before the other has its turns.
WRITTEN = (
    "jetmap.nats.transport:TcpTransport.write<",
    "jetmap.nats.transport:TcpTransport.writelines<",
)
READ = "jetmap.nats.transport:Socket.buffer_updated<"
GIVEN, HEARD = "jetmap.wire.frames:AgentPipe.send<", "jetmap.wire.frames:AgentPipe.buffer_updated<"
TAKEN, ANSWERED = (
    "jetmap.wire.frames:BlockingPipe.receive>",
    "jetmap.wire.frames:BlockingPipe.send<",
)
POINTS = (*WRITTEN, READ, GIVEN, HEARD, TAKEN, ANSWERED)
# A hop ends at a point of a process. The first such point after the last hop's end counts.
CALLER, AGENT, WORKER = "caller", "agent", "worker"
HOPS = {
    "caller: from the call to the write of its chunk": (CALLER, WRITTEN),
    "caller to nats-server to agent": (AGENT, (READ,)),
    "agent: gives the chunk to its worker": (AGENT, (GIVEN,)),
    "agent to worker": (WORKER, (TAKEN,)),
    "worker: computes": (WORKER, (ANSWERED,)),
    "worker to agent": (AGENT, (HEARD,)),
    "agent: reports": (AGENT, WRITTEN),
    "agent to nats-server to caller": (CALLER, (READ,)),
    "caller: ends the map": (CALLER, ()),
}


class Turns(msgspec.Struct):
    """The turns of one side. pids: by part. spans: from call to return, in nanoseconds.

    cpu: microseconds of each part for a turn.
    """

    pids: dict[str, int]
    spans: list[tuple[int, int]]
    cpu: dict[str, float]


# The bare chain


def _bare_worker(pipe: socket.socket) -> None:
    channel = frames.BlockingPipe(pipe)
    while (received := channel.receive()) is not None:
        channel.send(frames.LAST, received[1])


def _bare_agent(url: str, pipe: socket.socket, ready: Event) -> None:
    uvloop.run(_pass_on(url, pipe, ready))


async def _pass_on(url: str, pipe: socket.socket, ready: Event) -> None:
    connection = await Connection.open([url], name="bench agent")
    channel = await frames.AgentPipe.open(pipe)
    replies: list[str] = []

    async def take(message: Message) -> None:
        if not message.headers:  # Those are of the end of a pull.
            replies.append(message.reply)
            channel.send(frames.CHUNK, message.data)

    await connection.subscribe("bench.pulled", take, direct=True)
    await begin_pulls(connection)
    ready.set()
    while (received := await channel.receive()) is not None:
        await connection.publish("bench.done", received[1])
        await connection.publish(replies.pop(), b"+ACK")
        await pull(connection)


class Chain:
    """The processes of the bare chain, and this one as their caller."""

    async def start(self) -> None:
        self._server = NatsServer()
        await self._server.start()
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = socket.socketpair()
        ready = spawn.Event()
        self._worker = spawn.Process(target=_bare_worker, args=(theirs,), daemon=True)
        self._agent = spawn.Process(
            target=_bare_agent, args=(self._server.url, ours, ready), daemon=True
        )
        for process in (self._worker, self._agent):
            process.start()
        ours.close()
        theirs.close()
        await asyncio.to_thread(ready.wait)
        self._connection = await Connection.open([self._server.url], name="bench caller")
        self._done: asyncio.Future[None]
        await self._connection.subscribe("bench.done", self._on_done, direct=True)

    async def _on_done(self, message: Message) -> None:
        self._done.set_result(None)

    async def call(self) -> None:
        self._done = asyncio.get_running_loop().create_future()
        await self._connection.publish("bench.work", b"x" * 200)
        await self._done

    def pids(self) -> dict[str, int]:
        agent, worker, server = self._agent.pid, self._worker.pid, self._server.pid
        assert agent is not None and worker is not None and server is not None
        return {CALLER: os.getpid(), AGENT: agent, WORKER: worker, "nats-server": server}

    async def stop(self) -> None:
        await self._connection.close()
        for process in (self._agent, self._worker):
            process.terminate()
            process.join()
        await self._server.stop()


# The measuring process


def _pids(cluster: Cluster) -> dict[str, int]:
    keeper = psutil.Process(cluster.keeper_pid)
    children = keeper.children(recursive=True)
    (server,) = (child.pid for child in children if "nats-server" in child.name())
    (worker,) = (child.pid for child in children if child.pid != server)
    return {CALLER: os.getpid(), AGENT: keeper.pid, WORKER: worker, "nats-server": server}


async def _measure(turns: int) -> tuple[Turns, Turns]:
    chain = Chain()
    await chain.start()
    async with Cluster(tasks=["bench.tasks"], cores=1) as cluster:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: cluster.map(tasks.nothing, [7]),
            chain.call,
        ]
        sides = [Turns(_pids(cluster), [], {}), Turns(chain.pids(), [], {})]
        for side in sides:
            side.cpu = dict.fromkeys(side.pids, 0.0)
        for batch in range(-1, turns // BATCH):  # The first one only warms up.
            for side, call in zip(sides, calls, strict=True):
                before = {part: _cpu(pid) for part, pid in side.pids.items()}
                spans = [await _timed(call) for _ in range(BATCH)]
                if batch < 0:
                    continue
                side.spans += spans
                for part, pid in side.pids.items():
                    side.cpu[part] += (_cpu(pid) - before[part]) / turns
    await chain.stop()
    return sides[0], sides[1]


def _cpu(pid: int) -> float:
    """Microseconds that a process has computed: finer than its `times`, without those of threads
    that have ended."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1000


async def _timed(call: Callable[[], Awaitable[object]]) -> tuple[int, int]:
    began = monotonic_ns()
    await call()
    return began, monotonic_ns()


# The table


def hops(side: Turns, stamps: list[tuple[int, int, str]]) -> dict[str, list[float]]:
    """Return the microseconds of each hop in each turn that has all of them."""
    parts = {pid: part for part, pid in side.pids.items()}
    found: dict[str, list[float]] = {name: [] for name in HOPS}
    at = 0
    for began, ended in side.spans:
        while at < len(stamps) and stamps[at][0] < began:
            at += 1
        times, step, wanted = [began], at, list(HOPS.values())[:-1]
        for part, points in wanted:
            while step < len(stamps) and stamps[step][0] <= ended:
                time, pid, point = stamps[step]
                step += 1
                if parts.get(pid) == part and point in points:
                    times.append(time)
                    break
        times.append(ended)
        if len(times) == len(HOPS) + 1:
            for name, first, last in zip(HOPS, times, times[1:], strict=False):
                found[name].append((last - first) / 1000)
    return found


def _print(sides: tuple[Turns, Turns], stamps: list[tuple[int, int, str]]) -> None:
    found = [hops(side, stamps) for side in sides]
    for each, side in zip(found, sides, strict=True):
        each["the whole"] = [(last - first) / 1000 for first, last in side.spans]
    print("| µs | jetmap, p10 | p50 | bare chain, p10 | p50 |\n| --- | ---: | ---: | ---: | ---: |")
    for name in found[0]:
        cells = [f"{quantile(each[name], share):6.0f}" for each in found for share in (0.1, 0.5)]
        print(f"| {name:48} | {' | '.join(cells)} |")
    print("\n| µs of CPU for an item | jetmap | bare chain |\n| --- | ---: | ---: |")
    for part in sides[0].pids:
        print(f"| {part:12} | " + " | ".join(f"{side.cpu[part]:6.0f}" for side in sides), "|")


def main() -> None:
    """Measure, in a process whose functions write stamps, and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.hops", description=__doc__)
    parser.add_argument("--turns", type=int, default=2_000, help="items of each side (2,000)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        Path("turns").write_bytes(msgspec.json.encode(uvloop.run(_measure(chosen.turns))))
        return
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "stamps"
        environment: dict[str, Any] = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "bench/traced"), str(ROOT))),
            "BENCH_STAMPS": str(file),
            "BENCH_POINTS": " ".join(POINTS),
        }
        command = [sys.executable, "-m", "bench.hops", "--inside", "--turns", str(chosen.turns)]
        subprocess.run(command, env=environment, cwd=directory, check=True)
        turns = (Path(directory) / "turns").read_bytes()
        lines = [line.split() for line in file.read_text().splitlines()]
    stamps = sorted((int(at), int(pid), point) for at, _, pid, point in lines)
    _print(msgspec.json.decode(turns, type=tuple[Turns, Turns]), stamps)


if __name__ == "__main__":
    main()
