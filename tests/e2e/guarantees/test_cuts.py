"""The network of one host is cut, an agent's or a caller's, for a moment and for a minute."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import functions
from callers import Caller
from net import Net, inside
from servers import Site, executions
from waiting import until, wait_until

pytestmark = pytest.mark.anyio


async def test_an_agents_host_for_a_moment(net: Net, wide: Site) -> None:
    cluster = await wide.cluster()
    hosts = [net.host(), net.host()]
    await wide.ready(cluster, *[wide.start_agent(cores=1, within=inside(host)) for host in hosts])
    items = [(n, "sleep:0.01") for n in range(1200)]
    running = asyncio.ensure_future(cluster.map(functions.hurt, items))
    await wait_until(lambda: cluster.stats.items_done > 50, "the map runs")
    net.cut(hosts[0])
    await until(time.monotonic() + 5)
    net.mend(hosts[0])
    assert await running == list(range(1200))


@pytest.mark.slow
async def test_a_callers_host_for_a_minute(net: Net, wide: Site, tmp_path: Path) -> None:
    cluster = await wide.cluster()
    await wide.agent(cluster)
    log, host = tmp_path / "log", net.host()
    items = [(0, 20.0)] + [(n, 0.05) for n in range(1, 400)]
    async with Caller.on(wide, log, items, within=inside(host)) as caller:
        await wait_until(lambda: len(executions(log)) > 50, "the map runs")
        net.cut(host)
        cut = time.monotonic()
        # Its chunks are dropped meanwhile, and the cores are there for others.
        await wide.until_busy(cluster, 0)
        assert await cluster.map(functions.empty, range(500)) == list(range(500))
        await until(cut + 60)
        net.mend(host)
        said = await caller.said()
    assert said.values == list(range(400))
    assert said.again > 0 and executions(log)[0] == 2
