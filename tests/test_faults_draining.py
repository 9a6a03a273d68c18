"""Agents that are told to stop, and their replacement: what they have not begun is handed back."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

import functions
from jetmap import Cluster
from load import Load
from support import (
    Site,
    executions,
    presence,
)
from waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_sigterm_drains(place: Site, own: Cluster, tmp_path: Path) -> None:
    first, _ = await place.two_agents(own)
    log = tmp_path / "log"
    running = asyncio.ensure_future(
        own.map(functions.logged, [(n, 0.02) for n in range(400)], kwargs={"log": str(log)})
    )
    await wait_until(lambda: own.stats.items_done > 40, "the map runs")
    first.signal(signal.SIGTERM)
    asked = time.monotonic()
    await wait_until(first.has_exited, "the agent exits", 12, lambda: first.said)
    assert first.process.returncode == 0, first.said
    assert time.monotonic() - asked < 3
    assert presence(own, first) is None
    assert await running == list(range(400))
    # What it had not begun was handed back, and nothing ran twice.
    assert executions(log) == dict.fromkeys(range(400), 1)


async def test_sigterm_in_a_long_item_hands_it_back(place: Site, own: Cluster) -> None:
    first, _ = await place.two_agents(own, "--grace", "1")
    running = asyncio.ensure_future(own.map(functions.nap, [3.0] * 4))
    await place.until_busy(own, 4)
    first.signal(signal.SIGTERM)
    await wait_until(first.has_exited, "the agent exits", 6, lambda: first.said)
    assert first.process.returncode == 0, first.said
    assert await running == [3.0] * 4


async def test_a_second_signal_means_now(place: Site, own: Cluster) -> None:
    first, _ = await place.two_agents(own, "--grace", "60")
    running = asyncio.ensure_future(
        own.map(functions.hurt, [(n, "sleep:8" if n < 4 else "") for n in range(50)])
    )
    await place.until_busy(own, 4)
    first.signal(signal.SIGTERM)
    await wait_until(lambda: "SIGTERM" in first.said, "it has heard the first")
    first.signal(signal.SIGINT)
    await wait_until(first.has_exited, "the agent exits", 3, lambda: first.said)
    second_signal = first.process.returncode
    assert second_signal == 0, first.said
    running.cancel()


async def test_sigterm_when_the_broker_went_first(place: Site, own: Cluster) -> None:
    agent = await place.agent(own)
    running = asyncio.ensure_future(own.map(functions.spin, [0.01] * 1000))
    await wait_until(lambda: own.stats.items_done > 10, "the map runs")
    await place.server.stop()
    agent.signal(signal.SIGTERM)
    await wait_until(agent.has_exited, "the agent exits", 15, lambda: agent.said)
    assert agent.process.returncode == 0, agent.said
    running.cancel()


async def test_a_rolling_restart_under_load(place: Site, own: Cluster) -> None:
    agents = list(await place.two_agents(own))
    async with Load(own) as load:
        for old in agents:
            new = place.start_agent()
            await place.ready(own, new)
            old.signal(signal.SIGTERM)
            await wait_until(old.has_exited, "the old agent exits", 12, lambda old=old: old.said)
            assert old.process.returncode == 0, old.said
            await load.goes_on()
