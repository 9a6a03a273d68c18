"""A tasks file that breaks while its functions are served, and is mended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jetmap import Cluster, WorkerStartFailed
from support import Site
from waiting import wait_for, wait_until

pytestmark = pytest.mark.anyio

GOOD = """
import time
from jetmap import task

@task
def broken_later(seconds: float) -> str:
    time.sleep(seconds)
    return "version {version}"
"""
BAD = "this is no Python\n"


async def test_maps_say_why_no_worker_can_start_and_go_on_when_it_is_mended(
    place: Site, tmp_path: Path
) -> None:
    cluster = await place.cluster()
    tasks = tmp_path / "source_that_breaks.py"
    tasks.write_text(GOOD.replace("{version}", "1"))
    await place.agent(cluster, str(tasks), "--reload")
    assert await cluster.map("broken_later", [0.0]) == ["version 1"]

    tasks.write_text(BAD)
    await wait_until(lambda: cluster.workers[0].failure is not None, "it breaks")
    with pytest.raises(WorkerStartFailed, match="invalid syntax"):
        await cluster.map("broken_later", [0.0])

    tasks.write_text(GOOD.replace("{version}", "the second"))
    await wait_for(lambda: mended(cluster), "it works again", 20)


async def mended(cluster: Cluster) -> bool:
    try:
        return await cluster.map("broken_later", [0.0]) == ["version the second"]
    except WorkerStartFailed:
        return False


async def test_an_open_map_ends_when_no_worker_can_start_any_more(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetmap.dispatch.recovery.HOPELESS_SECONDS", 2.0)
    cluster = await place.cluster()
    tasks = tmp_path / "source_that_breaks_early.py"
    tasks.write_text(GOOD)
    await place.agent(cluster, str(tasks), "--reload")
    running = asyncio.ensure_future(cluster.map("broken_later", [0.01] * 100_000))
    await wait_until(lambda: cluster.stats.items_done > 10, "the map runs")
    tasks.write_text(BAD)
    async with asyncio.timeout(30):
        with pytest.raises(WorkerStartFailed, match="invalid syntax"):
            await running
