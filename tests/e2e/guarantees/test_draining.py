"""Agents that stop, and their replacement: chunks that have not begun are handed back."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import functions
from jetmap import Cluster
from processes import alive
from servers import FUNCTIONS, AgentProcess, Site, executions, presence
from waiting import wait_until

pytestmark = pytest.mark.anyio


async def three_agents(place: Site, own: Cluster, *options: str) -> list[AgentProcess]:
    agents = [place.start_agent(FUNCTIONS, *options, cores=1) for _ in range(3)]
    await place.ready(own, *agents)
    return agents


async def test_a_signal_drains(place: Site, own: Cluster, tmp_path: Path) -> None:
    """SIGTERM, and Ctrl-C."""
    # With a grace of ten minutes, one that waited for it would not exit in time.
    *asked, _ = await three_agents(place, own, "--grace", "600")
    log = tmp_path / "log"
    running = asyncio.ensure_future(
        own.map(functions.logged, [(n, 0.01) for n in range(400)], kwargs={"log": str(log)})
    )
    await wait_until(lambda: own.stats.items_done > 40, "the map runs")
    for agent, number in zip(asked, (signal.SIGTERM, signal.SIGINT), strict=True):
        agent.signal(number)
    for agent in asked:
        await wait_until(agent.has_exited, "the agent exits", 30, lambda a=agent: a.said)
        assert agent.process.returncode == 0, agent.said
        assert presence(own, agent) is None
    assert await running == list(range(400))
    # What they computed was finished, the rest was handed back, and nothing ran twice.
    assert executions(log) == dict.fromkeys(range(400), 1)


async def test_sigterm_in_a_long_item_hands_it_back(
    place: Site, own: Cluster, tmp_path: Path
) -> None:
    first = await place.agent(own, FUNCTIONS, "--grace", "1", cores=1)
    gate = tmp_path / "gate"
    running = asyncio.ensure_future(own.map(functions.gate, [(str(gate), 1)]))
    await place.until_busy(own, 1)
    await place.agent(own, cores=1)
    first.signal(signal.SIGTERM)
    await wait_until(first.has_exited, "the agent exits", 30, lambda: first.said)
    assert first.process.returncode == 0, first.said
    await place.until_busy(own, 1)
    # It was handed back: neither its lease nor a silence had to pass.
    assert own.stats.chunks_again.total() == 0
    gate.touch()
    assert await running == [bytes(1)]


@pytest.mark.slow
async def test_a_second_signal_means_now(place: Site, own: Cluster, tmp_path: Path) -> None:
    first, second, _ = await three_agents(place, own, "--grace", "600")
    gate = tmp_path / "gate"
    items = [(str(gate) if size < 4 else "", size) for size in range(50)]
    running = asyncio.ensure_future(own.map(functions.gate, items))
    await place.until_busy(own, 3)
    for agent, number in ((first, signal.SIGTERM), (second, signal.SIGINT)):
        agent.signal(number)
        await wait_until(lambda a=agent, n=number: n.name in a.said, "it has heard the first")
        agent.signal(signal.SIGINT)
        await wait_until(agent.has_exited, "the agent exits", 30, lambda a=agent: a.said)
        assert agent.process.returncode == 0, agent.said
    # Elsewhere it is completed.
    gate.touch()
    assert await running == [bytes(size) for size in range(50)]


@pytest.mark.parametrize("how", ["gone", pytest.param("frozen", marks=pytest.mark.slow)])
async def test_sigterm_when_the_broker_went_first(place: Site, own: Cluster, how: str) -> None:
    agent = await place.agent(own, FUNCTIONS, "--grace", "1", cores=1)
    workers = agent.workers
    running = asyncio.ensure_future(own.map(functions.spin, [600.0] * 1000))
    await place.until_busy(own, 1)
    assert place.server.pid is not None
    if how == "gone":
        await place.server.stop()
    else:
        os.kill(place.server.pid, signal.SIGSTOP)
    agent.signal(signal.SIGTERM)
    try:
        await wait_until(agent.has_exited, "the agent exits", 30, lambda: agent.said)
    finally:
        if how == "frozen":
            os.kill(place.server.pid, signal.SIGCONT)
    assert agent.process.returncode == 0, agent.said
    assert not any(alive(worker.pid) for worker in workers)
    running.cancel()
