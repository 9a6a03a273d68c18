"""Processes that a function starts: they hold up nothing, and end with their worker."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import functions
from jetmap import Cluster, ItemError, ItemTimeout, WorkerLost
from load import orders
from processes import alive
from servers import AgentProcess, Site, check
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster(home_cluster: Cluster) -> Cluster:
    return home_cluster


async def gone(file: Path) -> None:
    """Wait until the process with the number in this file is gone."""
    await wait_until(lambda: not alive(int(file.read_text())), "the child is gone")


async def test_a_worker_that_dies_beside_its_forked_child(
    cluster: Cluster, agent: AgentProcess
) -> None:
    async with asyncio.timeout(PATIENCE):
        values = await cluster.map(
            functions.hurt, orders(20, {5: "fork-kill"}), return_exceptions=True
        )
    check(values, range(20), {5: WorkerLost})
    assert values[5].signal == signal.SIGKILL
    assert await cluster.map(functions.empty, range(100)) == list(range(100))


@pytest.mark.slow
async def test_sigterm_after_such_a_death(place: Site, own: Cluster) -> None:
    agent = await place.agent(own, functions.__file__, "--grace", "1")
    workers = {worker.pid for worker in agent.workers}
    running = asyncio.ensure_future(
        own.map(functions.hurt, orders(20, {5: "fork-kill"}), return_exceptions=True)
    )
    await wait_until(lambda: not all(map(alive, workers)), "a worker dies")
    agent.signal(signal.SIGTERM)
    await wait_until(agent.has_exited, "the agent exits", 30, lambda: agent.said)
    assert agent.process.returncode == 0, agent.said
    running.cancel()


@pytest.mark.parametrize(
    ("function", "how", "error"),
    [
        (functions.limited, "child", ItemTimeout),
        (functions.limited, "session", ItemTimeout),
        (functions.hurt, "session-exit", WorkerLost),
    ],
    ids=["timeout", "timeout, left the session", "crash, left the session"],
)
async def test_what_the_function_started_ends_with_its_worker(
    cluster: Cluster,
    agent: AgentProcess,
    tmp_path: Path,
    function: Callable[..., int],
    how: str,
    error: type[ItemError],
) -> None:
    file = tmp_path / "pid"
    items = orders(50, {25: f"{how}:{file}"})
    values = await cluster.map(function, items, return_exceptions=True)
    check(values, range(50), {25: error})
    await gone(file)


async def test_leaving_ends_what_left_the_workers_session(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    running = asyncio.ensure_future(cluster.map(functions.hurt, [(0, f"session:{file}")]))
    await wait_until(lambda: file.exists() and file.read_text(), "the child runs")
    running.cancel()
    await gone(file)
