"""Values that are put: one copy a host, for all its workers, and gone whoever is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetmap import Cluster, ItemInvalid
from jetmap.dispatch import constants
from jetmap.settings import Settings
from jetmap.wire import memory_files
from processes import HERE
from put_functions import pick
from servers import CORES, AgentProcess, Site, outcomes, site
from waiting import PATIENCE, wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's"),
]

TASKS = str(HERE / "put_functions.py")
TABLE = np.arange(1_000_000)


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    where = tmp_path_factory.mktemp("put")
    async with site(where, store=where / "store") as there:
        yield there


@pytest.fixture(scope="module")
async def cluster(place: Site) -> AsyncIterator[Cluster]:
    settings = Settings(nats_url=place.server.url, attempts=5)
    async with Cluster(settings=settings) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def agent(place: Site, cluster: Cluster) -> AgentProcess:
    return await place.agent(cluster, TASKS)


def files(*pids: int) -> set[str]:
    """The inodes of put values that these processes have mapped or open."""
    found = set()
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                if "memfd:jetmap-value" in line:
                    found.add(line.split()[4])
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                if "memfd:jetmap-value" in str(fd.readlink()):
                    found.add(str(fd.stat().st_ino))
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended, or closed the file just now.
    return found


def there(agent: AgentProcess) -> list[int]:
    return [agent.pid, *(worker.pid for worker in agent.workers)]


async def test_workers_share_the_callers_memory_until_it_is_closed(
    cluster: Cluster, agent: AgentProcess
) -> None:
    with await cluster.put(TABLE) as ref:
        items = range(40)
        found = await cluster.map(pick, items, kwargs={"table": ref, "seconds": 0.01})
        assert [value[0] for value in found] == list(items)
        assert not any(value[1] for value in found), "it is read-only"
        assert len({value[2] for value in found}) == CORES
        shared = files(os.getpid())
        assert len(shared) == 1 and files(*there(agent)) == shared, "there is one copy"
    await wait_until(lambda: not files(os.getpid(), *there(agent)), "nobody keeps it")


async def test_large_keyword_parameters_are_put_by_themselves_and_never_stale(
    cluster: Cluster, agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "LINGER_SECONDS", 0.5)
    table = TABLE.copy()
    for value in (7, 8):
        table[3] = value
        found = await cluster.map(pick, [3] * 20, kwargs={"table": table, "seconds": 0.01})
        assert {(found, writable) for found, writable, _ in found} == {(value, 1)}
    await wait_until(lambda: not files(os.getpid(), *there(agent)), "nobody keeps it")


@pytest.mark.parametrize("victim", ["worker", pytest.param("agent", marks=pytest.mark.slow)])
async def test_far_hosts_fetch_it_once_and_the_dead_cost_no_outcome(
    place: Site, cluster: Cluster, agent: AgentProcess, monkeypatch: Any, victim: str
) -> None:
    monkeypatch.setattr(memory_files, "boot_id", lambda: "another host")
    doomed = await place.agent(cluster, TASKS) if victim == "agent" else None
    seen = 0

    def kill() -> None:
        nonlocal seen
        seen += 1
        if seen == 10 and doomed is not None:
            assert files(*there(doomed)), "it has a copy of its own"
            doomed.kill_host()
        elif seen == 10:
            agent.workers[0].kill()

    with await cluster.put(TABLE) as ref:
        stream = cluster.stream(pick, range(40), kwargs={"table": ref, "seconds": 0.05})
        async with asyncio.timeout(PATIENCE):
            found = await outcomes(stream, kill)
        assert [outcome.value[0] for outcome in found] == list(range(40))
        copies = files(*there(agent))
        assert len(copies) == 1 and not copies & files(os.getpid())
    await wait_until(lambda: not files(os.getpid(), *there(agent)), "nobody keeps it")


async def test_what_a_killed_caller_has_put_is_dropped(
    place: Site, cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    command = sys.executable, str(HERE / "put_caller.py"), place.server.url
    caller = await asyncio.create_subprocess_exec(*command, cwd=tmp_path)
    await place.until_busy(cluster, CORES)
    assert files(*there(agent)) == files(caller.pid) != set()
    caller.kill()
    await caller.wait()
    await wait_until(lambda: not files(*there(agent)), "nobody keeps what it has put")


async def test_a_job_keeps_what_was_put_for_it(
    place: Site, cluster: Cluster, agent: AgentProcess
) -> None:
    async with Cluster(place.server.url) as other:
        with await other.put(TABLE) as ref:
            kwargs = {"table": ref, "seconds": 0.02}
            submitted = await other.submit(pick, range(100), kwargs=kwargs)
    # Its submitter is gone: this process reads the value from the store, and goes on.
    job = cluster.job(submitted.id, pick)
    async with asyncio.timeout(PATIENCE):
        assert [value[0] for value in await job] == list(range(100))
    await wait_until(lambda: not files(os.getpid(), *there(agent)), "nobody keeps it")
    await job.delete()
    jobs = cluster._session.jobs.store
    assert not await jobs.jobs_in("INPUT")


async def test_a_host_that_cannot_load_it_says_so_for_each_item(
    cluster: Cluster, agent: AgentProcess
) -> None:
    """These workers do not load pickles, so a value is put without one; or not at all."""
    with pytest.raises(TypeError, match=r"the value cannot be put: .*Lock"):
        await cluster.put(asyncio.Lock())
    with await cluster.put({"no": "array"}) as ref:
        found = await cluster.map(pick, [1, 2], kwargs={"table": ref}, return_exceptions=True)
        assert all("AssertionError" in str(error) for error in found)
        with pytest.raises(ItemInvalid, match="keyword parameters"):
            await cluster.map("pick", [1], kwargs={"table": ref, "seconds": "x"})
