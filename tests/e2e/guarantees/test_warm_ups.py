"""A function's first call in a worker may take longer, since it loads what it needs: bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap import Cluster
from servers import Site

LOADS = """
import time
from jetmap import task

loaded = set()

def load(name):
    if name not in loaded:
        time.sleep(1.0)
        loaded.add(name)

@task(timeout=0.5)
def first(n: int) -> int:
    load("first")
    return n

@task(timeout=0.5)
def crashes(n: int) -> int:
    load("crashes")
    if n == 3:
        import os
        os._exit(1)
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
    # The first one does not fit, and is not the call in which the function loads.
    values = await own.map("first", ["x", *range(1, 10)], return_exceptions=True)
    assert values[1:] == list(range(1, 10))
    assert {worker.pid for worker in agent.workers} == workers, "none was killed"
    values = await own.map("crashes", range(6), return_exceptions=True)
    assert [v for n, v in enumerate(values) if n != 3] == [0, 1, 2, 4, 5]
