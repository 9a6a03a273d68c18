"""A broker that is restarted, killed or emptied in the middle of maps."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster
from jetmap.errors import JetmapError
from jetmap.nats.server import NatsServer
from servers import AgentProcess, Site, executions, site
from waiting import until, wait_for, wait_until

pytestmark = pytest.mark.anyio


async def test_the_broker_restarts(home: Site, home_cluster: Cluster, agent: AgentProcess) -> None:
    """Its streams are lost with it; each caller's maps go on."""
    other = await home.cluster()
    before = home_cluster.stats.items_done
    maps: list[Any] = [
        asyncio.ensure_future(
            which.map(functions.work, [functions.Work(n, 2000) for n in range(300)])
        )
        for which in (home_cluster, other, home_cluster, other)
    ]
    await wait_until(lambda: home_cluster.stats.items_done > before + 50, "the maps run")
    await restart(home, None)
    assert await asyncio.gather(*maps) == [list(range(300))] * 4


async def test_the_broker_is_killed_and_still_has_its_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETMAP_WORK_STORAGE", "file")
    store, log = tmp_path / "store", tmp_path / "log"
    async with site(tmp_path, store=store) as place:
        cluster = await place.cluster()
        await place.agent(cluster)
        before = await work_stream(place)
        assert before["config"]["storage"] == "file"
        # The long one is computed throughout.
        items = [(n, 4.0 if n == 0 else 0.003) for n in range(800)]
        running = asyncio.ensure_future(
            cluster.map(functions.logged, items, kwargs={"log": str(log)})
        )
        await wait_until(lambda: cluster.stats.items_done > 100, "the map runs")
        await kill(place)
        await wait_until(lambda: not cluster.connected, "it is noticed")
        await restart(place, store)
        assert (await work_stream(place))["created"] == before["created"]
        assert await running == list(range(800))
        assert executions(log)[0] == 1


async def work_stream(place: Site) -> dict[str, Any]:
    """Return the broker's description of the stream, once it answers."""
    connection = await place.connection()

    async def ask() -> dict[str, Any] | None:
        try:
            return await connection.api("STREAM.INFO.JETMAP_WORK_default", timeout=1)
        except JetmapError:
            return None

    found = await wait_for(ask, "the broker answers")
    assert found is not None
    return found


async def kill(place: Site) -> None:
    assert place.server.pid is not None
    os.kill(place.server.pid, signal.SIGKILL)
    await place.server.wait()


@pytest.mark.slow
async def test_the_broker_is_killed_and_comes_back_late(
    home: Site, home_cluster: Cluster, agent: AgentProcess
) -> None:
    before = home_cluster.stats.items_done
    running = asyncio.ensure_future(
        home_cluster.map(functions.work, [functions.Work(n, 3000) for n in range(1500)])
    )
    await wait_until(lambda: home_cluster.stats.items_done > before + 100, "the map runs")
    await kill(home)
    # Both sides run dry meanwhile.
    await wait_until(lambda: not home_cluster.connected, "it is noticed")
    await until(time.monotonic() + 2)
    await restart(home, None)
    assert await running == list(range(1500))


async def restart(place: Site, store: Path | None) -> None:
    port = place.server.port
    await place.server.stop()
    place.server = NatsServer(port=port, store=store)
    await place.server.start()
