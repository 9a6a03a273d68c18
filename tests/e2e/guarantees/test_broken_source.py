"""Source files that break while their functions are served with `--reload`, and are mended."""

from __future__ import annotations

import asyncio
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
PATIENCE = 30  # Seconds.
USES_HELPER = GOOD.replace("import time", "import time\nfrom helper_of_broken_later import version")
USES_HELPER = USES_HELPER.replace('"version {version}"', 'f"version {version}"')


@pytest.mark.timeout(180)
async def test_the_last_good_version_serves_until_the_source_is_mended(
    place: Site, tmp_path: Path
) -> None:
    """Four times: its syntax, its imports, its tasks and what it imports are broken."""
    cluster = await place.cluster()
    tasks, helper = tmp_path / "source_that_breaks.py", tmp_path / "helper_of_broken_later.py"
    tasks.write_text(GOOD.replace("{version}", "0"))
    agent = await place.agent(cluster, str(tasks), "--reload", cores=1)
    broken = [
        (BAD, f"{tasks}:1: '(' was never closed\n    def broken_later(\n                    ^\n"),
        ("import no_such_module\n" + GOOD, "line 1, in <module>"),
        ("import os\n", "has no @task function"),
        (USES_HELPER, f"{helper}:1: "),
    ]
    helper.write_text(BAD)
    for number, (source, reason) in enumerate(broken):
        pids = worker_pids(cluster, agent)
        tasks.write_text(source)
        await wait_until(lambda: cluster.workers[0].failure, "the change is refused", PATIENCE)
        assert reason in f"{cluster.workers[0].failure}\n"
        assert agent.said.count("the previous version keeps running") == number + 1
        assert await cluster.map("broken_later", [0.0] * 20) == [f"version {number}"] * 20
        assert worker_pids(cluster, agent) == pids
        if source == USES_HELPER:
            helper.write_text(f"version = {number + 1}\n")
        else:
            tasks.write_text(GOOD.replace("{version}", str(number + 1)))
        mended = f"version {number + 1}"
        await wait_for(lambda v=mended: answers(cluster, v), "the mended source serves", PATIENCE)
        await wait_until(lambda: cluster.workers[0].failure is None, "all is well", PATIENCE)


async def test_source_that_was_broken_from_the_beginning_is_mended(
    place: Site, tmp_path: Path
) -> None:
    cluster = await place.cluster()
    tasks = tmp_path / "source_broken_before.py"
    tasks.write_text(BAD)
    place.start_agent(str(tasks), "--reload", cores=1)
    await wait_until(
        lambda: cluster.workers and cluster.workers[0].failure, "it cannot start", PATIENCE
    )
    tasks.write_text(GOOD.replace("{version}", "1"))
    await wait_for(lambda: answers(cluster, "version 1"), "the mended source serves", PATIENCE)


async def test_an_open_map_ends_when_no_worker_can_start_any_more(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetmap.dispatch.recovery.HOPELESS_SECONDS", 2.0)
    cluster = await place.cluster()
    tasks = tmp_path / "source_that_breaks_early.py"
    tasks.write_text(GOOD)
    agent = await place.agent(cluster, str(tasks), "--reload", cores=1)
    running = asyncio.ensure_future(cluster.map("broken_later", [0.01] * 100_000))
    await wait_until(lambda: cluster.stats.items_done > 10, "the map runs")
    tasks.write_text(BAD)
    await wait_until(lambda: cluster.workers[0].failure, "the change is refused", PATIENCE)
    for worker in agent.workers:  # Those after them have only the broken source.
        worker.kill()
    async with asyncio.timeout(30):
        with pytest.raises(WorkerStartFailed, match="never closed"):
            await running


def worker_pids(cluster: Cluster, agent: AgentProcess) -> set[int | None]:
    found = presence(cluster, agent)
    assert found is not None
    return {worker.pid for worker in found.workers}


async def answers(cluster: Cluster, version: str) -> bool:
    try:
        return await cluster.map("broken_later", [0.0]) == [version]
    except WorkerStartFailed:
        return False
