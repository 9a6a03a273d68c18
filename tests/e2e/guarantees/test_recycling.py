"""Workers that are replaced after a while: nothing is lost, and nothing waits for the next one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from jetmap import Cluster
from load import Load
from servers import FUNCTIONS, Site, starts
from waiting import wait_until

pytestmark = pytest.mark.anyio

# An import that takes a while, as a numeric library's does; it notes its begin and its end.
TASKS = f"""
import sys, time
sys.path.insert(0, {str(Path(FUNCTIONS).parent)!r})
import functions
from jetmap import task

functions.note(LOG, -1)
time.sleep(0.5)
functions.note(LOG, -2)
kept = []

@task
def keep(item: tuple[int, int]) -> int:
    number, size = item
    functions.note(LOG, number)
    kept.append(b"x" * size)
    time.sleep(0.01)  # It computes.
    return number
"""


async def test_by_chunks(place: Site, own: Cluster) -> None:
    agent = await place.agent(own, FUNCTIONS, "--recycle-chunks", "3", cores=1)
    before = {worker.pid for worker in agent.workers}
    async with Load(own):
        await wait_until(
            lambda: before.isdisjoint(worker.pid for worker in agent.workers),
            "its worker is replaced",
        )


@pytest.mark.parametrize(
    ("size", "option"),
    [
        pytest.param(0, ("--recycle-age", "1"), id="age"),
        pytest.param(400_000, ("--recycle-memory", "120MB"), id="memory", marks=pytest.mark.slow),
    ],
)
async def test_no_item_waits_for_the_next_worker(
    place: Site, own: Cluster, tmp_path: Path, size: int, option: tuple[str, str]
) -> None:
    log = tmp_path / "log"
    tasks = tmp_path / "slow_tasks.py"
    tasks.write_text(TASKS.replace("LOG", repr(str(log))))
    await place.agent(own, str(tasks), *option, cores=1)
    numbers = 0
    pids: list[int] = []
    async with own.stream("keep", ((n, size) for n in range(100_000))) as stream:
        async for outcome in stream:
            numbers += 1
            assert outcome.value == outcome.item[0]
            if numbers % 50 == 0:
                pids = list(dict.fromkeys(s.pid for s in starts(log) if s.index >= 0))
                if len(pids) >= 2:
                    break
    noted = starts(log)
    for old, new in itertools.pairwise(pids):
        begun, ready = (min(s.at for s in noted if (s.pid, s.index) == (new, n)) for n in (-1, -2))
        first = min(s.at for s in noted if s.pid == new and s.index >= 0)
        # The old one computed while the new one imported.
        assert begun < ready < first
        assert any(s.pid == old and begun < s.at < ready for s in noted if s.index >= 0)
