"""Both brokers, for tests that hold for either: a real nats-server and the one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from jetmap.nats.broker import Broker
from jetmap.nats.clock import ManualClock
from jetmap.nats.connection import Connection
from jetmap.nats.memory import MemoryBroker
from jetmap.nats.server import NatsServer
from waiting import PATIENCE


@dataclass
class Brokers:
    """A broker to test: how to connect to it, and how to let time pass."""

    connect: Callable[[], Awaitable[Broker]]
    passing: Callable[[float], None]


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Brokers]:
    """Start a broker; close its connections and end it. kind: "nats-server" or "memory"."""
    connections: list[Broker] = []
    server: NatsServer | None = None
    clock = ManualClock()
    memory = MemoryBroker(clock=clock)
    if kind != "memory":
        server = NatsServer()
        await server.start()

    async def connect() -> Broker:
        if server is None:
            connections.append(memory.connect())
        else:
            connections.append(await Connection.open([server.url], name="test", timeout=PATIENCE))
        return connections[-1]

    try:
        # A real server's time passes by itself.
        yield Brokers(connect, clock.advance if server is None else lambda seconds: None)
    finally:
        for connection in connections:
            await connection.close()
        if server is not None:
            await server.stop()
