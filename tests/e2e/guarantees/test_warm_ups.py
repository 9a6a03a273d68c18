"""A function's first call in a worker may take longer, since it loads what it needs: bounded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jetmap import Cluster, ItemTimeout
from servers import Site, check

# All of it

LOADS = """
import time
from jetmap import task

loaded = set()

def load(name):
    if name not in loaded:
        time.sleep(1.5)
        loaded.add(name)

@task(timeout=0.5)
def first(n: int) -> int:
    load("first")
    return n

@task(timeout=0.5)
def second(n: int) -> int:
    load("second")
    return n

@task(timeout=0.5)
def crashes(n: int) -> int:
    load("crashes")
    if n == 3:
        import os
        os._exit(1)
    return n

@task(timeout=0.5)
def hangs(n: int) -> int:
    time.sleep(600 if n % 2 else 0)
    return n
"""


@pytest.mark.anyio
async def test_a_model_that_loads_longer_than_an_item_may_take(
    place: Site, own: Cluster, tmp_path: Path
) -> None:
    tasks = tmp_path / "loading.py"
    tasks.write_text(LOADS)
    agent = await place.agent(own, str(tasks), "--start-timeout", "20", cores=1)
    workers = {worker.pid for worker in agent.workers}
    for name in ("first", "second"):
        # The first one does not fit, and is not the call in which the function loads.
        values = await own.map(name, ["x", *range(1, 10)], return_exceptions=True)
        assert values[1:] == list(range(1, 10))
    assert {worker.pid for worker in agent.workers} == workers, "none was killed"
    values = await own.map("crashes", range(6), return_exceptions=True)
    assert [v for n, v in enumerate(values) if n != 3] == [0, 1, 2, 4, 5]


@pytest.mark.anyio
async def test_what_hangs_is_killed_and_says_so(place: Site, own: Cluster, tmp_path: Path) -> None:
    tasks = tmp_path / "hanging.py"
    tasks.write_text(LOADS)
    await place.agent(own, str(tasks), "--start-timeout", "4", cores=1)
    began = time.monotonic()
    values = await own.map("hangs", [1, 3, 5, 7, 9, 2], return_exceptions=True)
    check(values, [0, 0, 0, 0, 0, 2], dict.fromkeys(range(5), ItemTimeout))
    messages = [str(error.message) for error in values[:5]]
    assert all("timeout of 0.5 s" in message for message in messages)
    whole = [message for message in messages if "the 4 s more" in message]
    assert len(whole) == 1, f"one allowance was used up: {messages}"
    assert sum("Load it when the module is imported" in m for m in messages) == 4
    assert time.monotonic() - began > 4
