"""Agents that stop, and their replacement: chunks that have not begun are handed back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

import functions
from jetmap import Cluster
from load import Load
from processes import alive
from servers import CORES, FUNCTIONS, Site, executions, presence
from waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_a_signal_drains(
    place: Site, own: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    first, _ = await place.two_agents(own)
    log = tmp_path / "log"
    running = asyncio.ensure_future(
        own.map(functions.logged, [(n, 0.02) for n in range(400)], kwargs={"log": str(log)})
    )
    await wait_until(lambda: own.stats.items_done > 40, "the map runs")
    first.signal(number)
    asked = time.monotonic()
    await wait_until(first.has_exited, "the agent exits", 12, lambda: first.said)
    assert first.process.returncode == 0, first.said
    assert time.monotonic() - asked < 9, "it waited for its grace"
    assert presence(own, first) is None
    assert await running == list(range(400))
    # What it had not begun was handed back, and nothing ran twice.
    assert executions(log) == dict.fromkeys(range(400), 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_what_ends_within_the_grace_is_finished(
    place: Site, own: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    first, _ = await place.two_agents(own, "--grace", "20")
    log = tmp_path / "log"
    running = asyncio.ensure_future(
        own.map(functions.logged, [(n, 3.0) for n in range(4)], kwargs={"log": str(log)})
    )
    await place.until_busy(own, 4)
    first.signal(number)
    await wait_until(first.has_exited, "the agent exits", 12, lambda: first.said)
    assert first.process.returncode == 0, first.said
    assert await running == list(range(4))
    assert executions(log) == dict.fromkeys(range(4), 1)


async def test_sigterm_in_a_long_item_hands_it_back(
    place: Site, own: Cluster, tmp_path: Path
) -> None:
    first = await place.agent(own, FUNCTIONS, "--grace", "1")
    gate = tmp_path / "gate"
    items = [(str(gate), 1), (str(gate), 2)]
    running = asyncio.ensure_future(own.map(functions.gate, items))
    await place.until_busy(own, CORES)
    await place.agent(own)
    first.signal(signal.SIGTERM)
    await wait_until(first.has_exited, "the agent exits", 12, lambda: first.said)
    exited = time.monotonic()
    assert first.process.returncode == 0, first.said
    await place.until_busy(own, CORES)
    # At once: neither its lease of ten seconds nor a silence of five had to pass.
    assert time.monotonic() - exited < 4 and own.stats.chunks_again.total() == 0
    gate.touch()
    assert await running == [bytes(1), bytes(2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_a_second_signal_means_now(
    place: Site, own: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    first, _ = await place.two_agents(own, "--grace", "60")
    gate = tmp_path / "gate"
    items = [(str(gate) if size < 4 else "", size) for size in range(50)]
    running = asyncio.ensure_future(own.map(functions.gate, items))
    await place.until_busy(own, 4)
    first.signal(number)
    await wait_until(lambda: number.name in first.said, "it has heard the first")
    first.signal(signal.SIGINT)
    await wait_until(first.has_exited, "the agent exits", 10, lambda: first.said)
    second_signal = first.process.returncode
    assert second_signal == 0, first.said
    # Elsewhere it is completed.
    gate.touch()
    assert await running == [bytes(size) for size in range(50)]


@pytest.mark.parametrize("seconds", [0.01, 30], ids=["short items", "longer than the grace"])
@pytest.mark.parametrize("how", ["gone", "frozen"])
async def test_sigterm_when_the_broker_went_first(
    place: Site, own: Cluster, seconds: float, how: str
) -> None:
    agent = await place.agent(own, FUNCTIONS, "--grace", "2")
    workers = agent.workers
    running = asyncio.ensure_future(own.map(functions.spin, [0.0, 0.0] + [seconds] * 1000))
    await wait_until(lambda: own.stats.items_done >= 2, "the map runs")
    await place.until_busy(own, CORES)
    assert place.server.pid is not None
    if how == "gone":
        await place.server.stop()
    else:
        os.kill(place.server.pid, signal.SIGSTOP)
    agent.signal(signal.SIGTERM)
    try:
        await wait_until(agent.has_exited, "the agent exits", 15, lambda: agent.said)
    finally:
        if how == "frozen":
            os.kill(place.server.pid, signal.SIGCONT)
    assert agent.process.returncode == 0, agent.said
    assert not any(alive(worker.pid) for worker in workers)
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
