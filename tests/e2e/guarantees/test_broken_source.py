"""Source files that break while their functions are served with `--reload`, and are mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap import Cluster, WorkerStartFailed
from servers import AgentProcess, Site, presence
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
BAD = "def broken_later(\n"


async def test_the_last_good_version_serves_until_the_source_is_mended(
    place: Site, tmp_path: Path
) -> None:
    cluster = await place.cluster()
    tasks = tmp_path / "source_that_breaks.py"
    tasks.write_text(GOOD.replace("{version}", "0"))
    agent = await place.agent(cluster, str(tasks), "--reload", cores=1)
    pids = worker_pids(cluster, agent)
    tasks.write_text(BAD)
    await wait_until(lambda: cluster.workers[0].failure, "the change is refused")
    said = f"{tasks}:1: '(' was never closed\n    def broken_later(\n                    ^\n"
    assert said in f"{cluster.workers[0].failure}\n"
    assert agent.said.count("the previous version keeps running") == 1
    assert await cluster.map("broken_later", [0.0] * 20) == ["version 0"] * 20
    assert worker_pids(cluster, agent) == pids
    tasks.write_text(GOOD.replace("{version}", "1"))
    await wait_for(lambda: answers(cluster, "version 1"), "the mended source serves")
    await wait_until(lambda: cluster.workers[0].failure is None, "all is well")


@pytest.mark.slow
async def test_source_that_was_broken_from_the_beginning_is_mended(
    place: Site, tmp_path: Path
) -> None:
    cluster = await place.cluster()
    tasks = tmp_path / "source_broken_before.py"
    tasks.write_text(BAD)
    place.start_agent(str(tasks), "--reload", cores=1)
    await wait_until(lambda: cluster.workers and cluster.workers[0].failure, "it cannot start")
    tasks.write_text(GOOD.replace("{version}", "1"))
    await wait_for(lambda: answers(cluster, "version 1"), "the mended source serves")


def worker_pids(cluster: Cluster, agent: AgentProcess) -> set[int | None]:
    found = presence(cluster, agent)
    assert found is not None
    return {worker.pid for worker in found.workers}


async def answers(cluster: Cluster, version: str) -> bool:
    try:
        return await cluster.map("broken_later", [0.0]) == [version]
    except WorkerStartFailed:
        return False
