"""Work that takes long runs once, whatever leases and patiences there are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import functions
from jetmap import Cluster
from jetmap.agent import agent as agents
from jetmap.agent.agent import Agent
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.nats.connection import Connection
from jetmap.settings import Settings
from jetmap.wire import pool_streams
from servers import FUNCTIONS, AgentProcess, Site, executions
from waiting import PATIENCE, wait_for, wait_until

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_a_minute_runs_once(
    home_cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    items = [functions.Order(n, 0, how) for n, how in enumerate(["hold:60", "sleep:60", "", ""])]
    values = await home_cluster.map(functions.obey, items, kwargs={"log": str(log)})
    assert values == [0, 1, 2, 3]
    assert executions(log) == dict.fromkeys(range(4), 1)


# Ten minutes outlast the broker's lease, of ten seconds, and its memory of an offer that nobody
# pulls for, of five minutes. Here both are shorter, and so the item may be.
LEASE, INACTIVE, LONG = 1.0, 2.0, 5.0


@pytest.fixture
async def two_agents(
    place: Site, own: Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Agent]]:
    """Start two agents in this process, with a core each, a short lease and a short memory."""
    monkeypatch.setattr(pool_streams, "ACK_WAIT", LEASE)
    monkeypatch.setattr(pool_streams, "INACTIVE", INACTIVE)
    monkeypatch.setattr(agents, "RENEW_SECONDS", LEASE / 4)
    # An agent that has idled begins to renew with its next beat.
    monkeypatch.setattr(agents, "BEAT", LEASE / 4)
    setup = worker_setup(Settings(), tasks=[FUNCTIONS])
    options = AgentOptions(Settings(), setup, tuple(sys.path), str(place.place), cores=1)
    async with AsyncExitStack() as stack:
        made = []
        for number in range(2):
            connection = await Connection.open(
                [place.server.url], name=f"agent {number}", timeout=PATIENCE
            )
            stack.push_async_callback(connection.close)
            made.append(Agent(connection, options))
            stack.push_async_callback(made[-1].stop)
            await made[-1].start()
        await wait_until(
            lambda: sum(found.ready for found in own.workers) == 2, "the agents are ready", 30
        )
        yield made


async def test_longer_than_lease_and_memory_of_the_broker(
    place: Site, own: Cluster, two_agents: list[Agent], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # The core that is free before the other looks for work, long after nobody did.
    items = [(0, LONG), (1, LONG / 2), (2, 0.0), (3, 0.0)]
    connection = await place.connection()

    async def consumers() -> list[tuple[str, str, int]]:
        """Return the consumers with their creation times and their lifetime after their agents."""
        found = await connection.api("CONSUMER.LIST.JETMAP_WORK_default", {"offset": 0})
        return sorted(
            (one["name"], one["created"], one["config"]["inactive_threshold"])
            for one in found.get("consumers") or []
        )

    before = await wait_for(consumers, "there are consumers")
    assert {inactive for *_, inactive in before} == {INACTIVE * 1e9}
    values = await own.map(functions.logged, items, kwargs={"log": str(log)})
    assert values == [0, 1, 2, 3]
    assert executions(log) == dict.fromkeys(range(4), 1)
    assert own.stats.chunks_again.total() == 0
    assert await consumers() == before
    # And afterwards all is as before.
    assert (
        await asyncio.gather(*[own.map(functions.empty, range(50)) for _ in range(4)])
        == [list(range(50))] * 4
    )
