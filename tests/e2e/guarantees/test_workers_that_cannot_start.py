"""A worker that cannot start in a running agent: logged once, retried after growing pauses."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jetmap import Cluster
from servers import FUNCTIONS, Site, presence, starts
from waiting import wait_until

pytestmark = pytest.mark.anyio

FIRST_PAUSE = 0.5
GOOD = """
from jetmap import task

@task
def double(n: int) -> int:
    return 2 * n
"""
BAD = f"""
import sys, time
sys.path.insert(0, {str(Path(FUNCTIONS).parent)!r})
import functions

functions.note(LOG, 0)
PAUSE
raise RuntimeError("the model is not there")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds",
    [0, pytest.param(2.5, marks=pytest.mark.slow)],
    ids=["at once", "after a while"],
)
async def test_it_is_told_once_and_tried_ever_more_seldom(
    place: Site, own: Cluster, tmp_path: Path, seconds: float
) -> None:
    """seconds: that the import takes before it fails."""
    log = tmp_path / "log"
    tasks = tmp_path / "tasks_that_break.py"
    tasks.write_text(GOOD)
    agent = await place.agent(own, str(tasks), cores=1)
    assert await own.map("double", range(10)) == [2 * n for n in range(10)]

    bad = BAD.replace("LOG", repr(str(log))).replace("PAUSE", f"time.sleep({seconds})")
    tasks.write_text(bad)
    for worker in agent.workers:
        worker.kill()
    await wait_until(lambda: len(starts(log)) >= 3, "it is tried again")
    tries = [start.at for start in starts(log)]
    pauses = [b - a for a, b in itertools.pairwise(tries)]
    for number, pause in enumerate(pauses):
        assert pause >= FIRST_PAUSE * 2**number

    assert agent.said.count("workers cannot start") == 1, agent.said
    assert len(re.findall(r"^ *RuntimeError: the model is not there", agent.said, re.M)) == 1
    # It says where.
    assert f'File "{tasks}", line' in agent.said

    command = [sys.executable, "-m", "jetmap.cli", "status", "--nats", place.server.url]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, cwd=tmp_path
    )
    assert "cannot start" in done.stdout and f'File "{tasks}", line' in done.stdout
    assert done.stdout.count("RuntimeError: the model is not there") == 1
    found = presence(own, agent)
    assert found is not None and found.ready == 0
    assert "RuntimeError: the model is not there" in (found.failure or "")
    assert [worker.state for worker in found.workers] == ["failed"]

    # Mended, it is found to be so, and all is well.
    tasks.write_text(GOOD)
    await place.ready(own, agent)
    assert await own.map("double", range(10)) == [2 * n for n in range(10)]
    found = presence(own, agent)
    assert found is not None and found.failure is None
