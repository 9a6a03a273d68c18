"""Workers that cannot be started, or replaced, for a while."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jetmap import Cluster
from processes import alive
from servers import Site, presence
from waiting import wait_for, wait_until

pytestmark = pytest.mark.anyio

SOURCE = """
from jetmap import task

@task
def same(n: int) -> int:
    return n
"""


def failure(cluster: Cluster, agent: object) -> str:
    found = presence(cluster, agent)  # type: ignore[arg-type]
    return (found.failure or "") if found else ""


async def test_a_worn_worker_stays_until_another_is_warm(
    place: Site, own: Cluster, tmp_path: Path
) -> None:
    tasks = tmp_path / "worn_tasks.py"
    tasks.write_text(SOURCE)
    agent = await place.agent(own, str(tasks), "--recycle-chunks", "3", cores=1)
    (worker,) = agent.workers
    tasks.write_text("raise RuntimeError('broken by a deploy')")

    for n in range(10):
        assert await own.map("same", [n]) == [n]
    await wait_until(lambda: "broken by a deploy" in failure(own, agent), "it is announced")
    for n in range(10):
        assert await own.map("same", [n]) == [n]
    assert worker.pid in {w.pid for w in agent.workers}
    found = presence(own, agent)
    assert found is not None and found.ready == 1

    tasks.write_text(SOURCE)

    async def map_on() -> bool:
        assert await own.map("same", [1]) == [1]
        return not alive(worker.pid)

    await wait_for(map_on, "a warm one takes over", 30, lambda: agent.said)
    await wait_until(lambda: not failure(own, agent), "nothing is wrong any more")


@pytest.mark.slow
async def test_a_directory_that_comes_back(place: Site, own: Cluster, tmp_path: Path) -> None:
    directory = tmp_path / "release"
    directory.mkdir()
    tasks = directory / "moved_tasks.py"
    tasks.write_text(SOURCE)
    within = ("env", f"--chdir={directory}")
    agent = await place.agent(own, str(tasks), cores=1, within=within)
    shutil.rmtree(directory)
    (worker,) = agent.workers
    worker.kill()
    await wait_until(lambda: "cannot be started" in failure(own, agent), "it is announced")
    directory.mkdir()
    tasks.write_text(SOURCE)
    await wait_until(
        lambda: (found := presence(own, agent)) is not None and found.ready == 1,
        "it starts again",
        20,
        lambda: agent.said,
    )
    assert await own.map("same", range(10)) == list(range(10))
    assert not failure(own, agent)
