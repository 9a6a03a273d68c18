"""Show where the time of one empty item goes: ``python -m bench.one``.

Its way is measured piece by piece beside the whole: a byte through a socket and back, a request
through a NATS server and back, a chunk through JetStream to a waiting pull, one ``cluster.map``,
one HTTP request. Then the CPU of each process for an HTTP request, with one connection and with 16.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import psutil
import uvloop

from jetmap import Cluster
from jetmap.nats.broker import Message
from jetmap.nats.connection import Connection
from jetmap.nats.server import NatsServer

from . import tasks
from .measure import quantile
from .servers import PARTS, Server, gateway_server, processes
from .wire import connect, exchange, hammer, request

TURNS = 1_000
CONNECTIONS = (1, 16)


async def _timed(turn: Callable[[], Awaitable[object]], turns: int) -> list[float]:
    for _ in range(turns // 10):
        await turn()
    times = []
    for _ in range(turns):
        began = perf_counter()
        await turn()
        times.append(perf_counter() - began)
    return times


def _echo(end: socket.socket) -> None:
    while data := end.recv(64):
        end.sendall(data)


def socket_pair(turns: int) -> list[float]:
    """Time a byte to another process and back."""
    ours, theirs = socket.socketpair()
    other = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs,))
    other.start()
    times = []
    for _ in range(turns):
        began = perf_counter()
        ours.sendall(b"x")
        ours.recv(64)
        times.append(perf_counter() - began)
    other.terminate()
    other.join()
    ours.close()
    theirs.close()
    return times


def _peer(url: str, ready: Any) -> None:
    """Answer requests, and take chunks from a stream one by one, until this process is ended."""
    uvloop.run(_answer(url, ready))


async def begin_pulls(connection: Connection) -> None:
    """Create a stream like that of a pool, and wait for its first chunk."""
    stream = {"subjects": ["bench.work"], "storage": "memory", "retention": "workqueue"}
    await connection.api("STREAM.CREATE.bench", {"name": "bench", **stream})
    consumer = {"durable_name": "workers", "ack_policy": "explicit"}
    asked = {"stream_name": "bench", "config": consumer}
    await connection.api("CONSUMER.DURABLE.CREATE.bench.workers", asked)
    await pull(connection)
    await connection.flush()


async def pull(connection: Connection) -> None:
    """Wait for a chunk of that stream."""
    subject = "$JS.API.CONSUMER.MSG.NEXT.bench.workers"
    await connection.publish(subject, b'{"batch":1,"expires":30000000000}', "bench.pulled")


async def _answer(url: str, ready: Any) -> None:
    connection = await Connection.open([url], name="bench peer")

    async def answer(message: Message) -> None:
        await connection.publish(message.reply, message.data)

    async def take(message: Message) -> None:
        if not message.headers:  # Those are of the end of a pull.
            await connection.publish("bench.done", b"x")
            await connection.publish(message.reply, b"+ACK")
            await pull(connection)

    await connection.subscribe("bench.echo", answer, direct=True)
    await connection.subscribe("bench.pulled", take, direct=True)
    await begin_pulls(connection)
    ready.set()
    await asyncio.get_running_loop().create_future()


async def through_nats(turns: int) -> tuple[list[float], list[float]]:
    """Time a request through a server and back, and a chunk that a waiting pull gets."""
    server = NatsServer()
    await server.start()
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    peer = spawn.Process(target=_peer, args=(server.url, ready))
    peer.start()
    try:
        await asyncio.to_thread(ready.wait)
        connection = await Connection.open([server.url], name="bench")
        core = await _timed(lambda: connection.request("bench.echo", b"x"), turns)
        done = asyncio.Event()

        async def on_done(message: Message) -> None:
            done.set()

        await connection.subscribe("bench.done", on_done, direct=True)

        async def chunk() -> None:
            done.clear()
            await connection.publish("bench.work", b"x")
            await done.wait()

        stream = await _timed(chunk, turns)
        await connection.close()
    finally:
        peer.terminate()
        peer.join()
        await server.stop()
    return core, stream


async def in_python(turns: int) -> list[float]:
    """Time ``cluster.map`` of one item on the embedded cluster."""
    async with Cluster(tasks=["bench.tasks"]) as cluster:
        return await _timed(lambda: cluster.map(tasks.nothing, [7]), turns)


def over_http(server: Server, turns: int) -> list[float]:
    """Time one request, on one connection."""
    message, times = request(server.port, "/map/nothing", b"[7]"), []
    with connect(server.port) as connection:
        for _ in range(turns + turns // 10):
            began = perf_counter()
            exchange(connection, message)
            times.append(perf_counter() - began)
    return times[turns // 10 :]


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def cpu_of_requests(server: Server, connections: int, seconds: float) -> dict[str, float]:
    """Measure the CPU of each part for one request, in microseconds."""
    message = request(server.port, "/map/nothing", b"[7]")
    parts = processes(server)
    before = {name: _cpu(found) for name, found in parts.items()}
    load = hammer(server.port, message, b"[7]", connections, seconds)
    count = len(load.latencies)
    return {name: (_cpu(found) - before[name]) * 1e6 / count for name, found in parts.items()}


def _print(name: str, times: list[float]) -> None:
    p50, p99 = (1e6 * quantile(times, share) for share in (0.5, 0.99))
    print(f"| {name:44} | {p50:6,.0f} | {p99:6,.0f} |")


async def main() -> None:
    """Measure everything, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    turns = options.turns
    print(f"| {'µs':44} | {'p50':>6} | {'p99':>6} |\n| --- | --- | --- |")
    _print("a byte through a socket pair, there and back", socket_pair(turns))
    core, stream = await through_nats(turns)
    _print("a request through nats-server and back", core)
    _print("a chunk through JetStream, and its result", stream)
    _print("cluster.map of one empty item", await in_python(turns))
    async with gateway_server() as server:
        _print("POST /map of one empty item", over_http(server, turns))
        table = [cpu_of_requests(server, count, options.seconds) for count in CONNECTIONS]
    print("\n| µs of CPU a request | one connection | 16 connections |\n| --- | --- | --- |")
    for name in [*PARTS.values(), "workers"]:
        alone, busy = (row.get(name, 0.0) for row in table)
        print(f"| {name:19} | {alone:14,.0f} | {busy:14,.0f} |")


if __name__ == "__main__":
    uvloop.run(main())
