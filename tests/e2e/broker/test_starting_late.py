"""While the broker does not answer: an election, a frozen server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import psutil
import pytest

from jetmap.agent.agent import Agent
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.errors import BrokerUnreachable
from jetmap.nats.connection import Connection
from jetmap.settings import Settings
from jetmap.wire import pool_streams
from servers import FUNCTIONS, Site
from waiting import PATIENCE, wait_until, wait_until_sync

pytestmark = pytest.mark.anyio


@pytest.fixture
async def connection(place: Site) -> AsyncIterator[Connection]:
    connection = await Connection.open([place.server.url], name="test", timeout=PATIENCE)
    yield connection
    await connection.close()


def freeze(place: Site, seconds: float) -> None:
    """The broker answers nothing for so long."""
    pid = place.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    # A thread on another core may answer once more.
    stopped = psutil.STATUS_STOPPED
    wait_until_sync(lambda: psutil.Process(pid).status() == stopped, "it is frozen")
    asyncio.get_running_loop().call_later(seconds, os.kill, pid, signal.SIGCONT)


async def test_a_flush_that_gave_up_harms_nothing(place: Site, connection: Connection) -> None:
    freeze(place, 1.5)
    with pytest.raises(BrokerUnreachable):
        await connection.flush(0.5)
    lost = []

    async def note() -> None:
        lost.append(True)

    connection.on_lost(note)
    assert await pool_streams.ensure_stream(connection, "default", patience=10)
    assert connection.connected and not lost


async def test_a_worker_that_gets_ready_while_the_broker_is_frozen(
    place: Site, connection: Connection
) -> None:
    options = AgentOptions(
        Settings(),
        worker_setup(Settings(), tasks=[FUNCTIONS]),
        tuple(sys.path),
        str(place.place),
        cores=1,
    )
    agent = Agent(connection, options)
    try:
        cluster = await place.cluster()
        await agent.start()
        freeze(place, 7)
        await wait_until(lambda: any(p.ready for p in cluster.workers), "a worker is ready")
        assert await cluster.map("empty", [7]) == [7]
        await wait_until(lambda: all(p.rank for p in cluster.workers), "it has a rank")
    finally:
        await agent.stop()
