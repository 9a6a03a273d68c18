"""Agents that are lost, with their host or alone, or frozen: nothing of a map is lost."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

import functions
from jetmap import Cluster, WorkerLost
from processes import alive
from servers import AgentProcess, Site, check, executions, presence
from waiting import until, wait_until

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_a_host_dies(place: Site, own: Cluster) -> None:
    first, _ = await place.two_agents(own)
    items = [functions.Work(n, 5000) for n in range(1500)]
    running = asyncio.ensure_future(own.map(functions.work, items))
    await wait_until(lambda: own.stats.items_done > 100, "the map runs")
    first.kill_host()
    assert await running == list(range(1500))


@pytest.mark.slow
async def test_an_agent_is_frozen(place: Site, own: Cluster, tmp_path: Path) -> None:
    first, _ = await place.two_agents(own)
    log = tmp_path / "log"
    items = [functions.Order(n, 0.02, "") for n in range(1500)]
    running = asyncio.ensure_future(own.map(functions.obey, items, kwargs={"log": str(log)}))
    await wait_until(lambda: own.stats.items_done > 100, "the map runs")
    frozen = time.monotonic()
    first.signal(signal.SIGSTOP)
    await until(frozen + 13)
    first.signal(signal.SIGCONT)
    assert await running == list(range(1500))
    # Its late results change nothing; and it goes on.
    await wait_until(lambda: presence(own, first) is not None, "it is back")
    assert await own.map(functions.empty, range(500)) == list(range(500))
    await place.until_busy(own, 0)


@pytest.mark.slow
async def test_an_item_that_kills_its_hosts_does_not_tour_them(
    place: Site, own: Cluster, tmp_path: Path
) -> None:
    """A container is killed whole and started again by its supervisor."""
    agents = [place.start_agent(cores=1) for _ in range(4)]
    await place.ready(own, *agents)
    log, poison = tmp_path / "log", 150
    items = [functions.Order(n, 0.01, "agent" if n == poison else "") for n in range(600)]
    running = asyncio.ensure_future(
        own.map(functions.obey, items, kwargs={"log": str(log)}, return_exceptions=True)
    )

    def is_done() -> bool:
        for number, agent in enumerate(agents):
            if agent.has_exited():
                agents[number] = place.start_agent(cores=1)
        return running.done()

    await wait_until(is_done, "the map ends", 100)
    values = await running
    check(values, range(600), {poison: WorkerLost})
    error = values[poison]
    assert error.host == socket.gethostname() and error.attempts == 2
    # Three, and one more if this process is so busy that the broker has passed the item on before
    # an agent is missed (docs/reliability.md).
    assert executions(log)[poison] <= 4


@pytest.mark.slow
async def test_an_item_that_its_host_paused_in_is_not_to_blame(
    home_cluster: Cluster, agent: AgentProcess
) -> None:
    """All of it, as when a container is paused: nothing of that is the item's compute time."""
    own = home_cluster
    host = [psutil.Process(agent.pid), *agent.workers]
    items = [(n, "sleep:0.1") for n in range(100)]
    running = asyncio.ensure_future(own.map(functions.limited, items))
    for goal in (10, 40):
        await wait_until(lambda goal=goal: own.stats.items_done > goal, "the map runs")
        for process in host:
            process.suspend()
        await until(time.monotonic() + 2)
        for process in host:
            process.resume()
    assert await running == list(range(100))


async def test_an_agent_killed_alone_takes_its_workers_with_it(place: Site, own: Cluster) -> None:
    agent = await place.agent(own)
    workers = agent.workers
    agent.signal(signal.SIGKILL)
    await wait_until(lambda: not any(alive(w.pid) for w in workers), "the workers end")
