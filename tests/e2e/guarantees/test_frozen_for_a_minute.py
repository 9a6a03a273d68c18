"""An agent and a caller's process that stand still for a minute and then go on.

What they say then is late: it changes nothing.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

import functions
from callers import Caller
from jetmap import Cluster
from load import Load
from servers import Site, account, executions, presence
from waiting import until, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]

MINUTE = 60


async def test_an_agent(place: Site, own: Cluster) -> None:
    first, _ = await place.two_agents(own)
    async with Load(own, "sleep:0.2") as load:
        # Its workers compute what it has, and it tells of that when it goes on.
        await place.until_busy(own, 4)
        first.signal(signal.SIGSTOP)
        frozen = time.monotonic()
        await wait_until(lambda: presence(own, first) is None, "it is known to be gone")
        repeats = account(own).repeats
        await load.goes_on()
        await until(frozen + MINUTE)
        first.signal(signal.SIGCONT)
        await wait_until(lambda: account(own).repeats > repeats, "its late result comes")
        await place.until_ready(own, first)
        await load.goes_on()
    await place.until_busy(own, 0)


async def test_a_caller(place: Site, own: Cluster, tmp_path: Path) -> None:
    await place.agent(own)
    log = tmp_path / "log"
    async with Caller.on(place, log, [(n, 0.02) for n in range(1000)]) as caller:
        await wait_until(lambda: len(executions(log)) > 100, "the map runs")
        caller.freeze()
        frozen = time.monotonic()
        # Its chunks are dropped meanwhile, and the cores are there for others.
        await place.until_busy(own, 0)
        assert await own.map(functions.empty, range(500)) == list(range(500))
        begun = sum(executions(log).values())
        await until(frozen + MINUTE)
        assert sum(executions(log).values()) == begun
        caller.thaw()
        said = await caller.said(60)
    assert said.values == list(range(1000))
    # Agents that heard nothing sent their results again, and others ran what they had dropped.
    assert said.repeats > 0 and set(executions(log)) == set(range(1000))
