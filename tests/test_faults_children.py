"""Processes that a function starts: they hold up nothing, and end with their worker."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

import functions
from jetmap import Cluster, ItemTimeout, WorkerLost
from load import orders
from support import AgentProcess, Site, alive, check
from waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster(home_cluster: Cluster) -> Cluster:
    return home_cluster


async def gone(file: Path) -> None:
    """Until the process with the number in this file is gone."""
    await wait_until(lambda: not alive(int(file.read_text())), "the child is gone", 3)


async def test_a_worker_that_dies_beside_its_forked_child(
    cluster: Cluster, agent: AgentProcess
) -> None:
    async with asyncio.timeout(15):
        values = await cluster.map(
            functions.hurt, orders(20, {5: "fork-kill"}), return_exceptions=True
        )
    check(values, range(20), {5: WorkerLost})
    assert values[5].signal == signal.SIGKILL
    assert await cluster.map(functions.empty, range(100)) == list(range(100))


async def test_sigterm_after_such_a_death(place: Site, own: Cluster) -> None:
    agent = await place.agent(own, functions.__file__, "--grace", "1")
    workers = {worker.pid for worker in agent.workers}
    running = asyncio.ensure_future(
        own.map(functions.hurt, orders(20, {5: "fork-kill"}), return_exceptions=True)
    )
    await wait_until(lambda: not all(map(alive, workers)), "a worker dies")
    agent.signal(signal.SIGTERM)
    asked = time.monotonic()
    await wait_until(agent.has_exited, "the agent exits", 10, lambda: agent.said)
    assert agent.process.returncode == 0, agent.said
    assert time.monotonic() - asked < 6
    running.cancel()


async def test_a_timeout_ends_what_left_the_workers_session(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    values = await cluster.map(
        functions.limited, orders(50, {25: f"session:{file}"}), return_exceptions=True
    )
    check(values, range(50), {25: ItemTimeout})
    await gone(file)


async def test_a_crash_ends_what_left_the_workers_session(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    values = await cluster.map(
        functions.hurt, orders(50, {25: f"session-exit:{file}"}), return_exceptions=True
    )
    check(values, range(50), {25: WorkerLost})
    await gone(file)


async def test_leaving_ends_what_left_the_workers_session(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    running = asyncio.ensure_future(cluster.map(functions.hurt, [(0, f"session:{file}")]))
    await wait_until(lambda: file.exists() and file.read_text(), "the child runs")
    running.cancel()
    await gone(file)
