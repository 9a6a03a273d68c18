"""Items and values of many megabytes: there and back, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster
from jetmap.client.call import Call
from jetmap.dispatch.outcomes import Batch, Decoded
from jetmap.settings import Settings
from jetmap.wire.messages import Format
from processes import HERE
from real_jobs import kill_server, start_server
from servers import CORES, AgentProcess, Site, outcomes, site
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio

MB = 1_000_000


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A server with a store, where two agents come and go."""
    where = tmp_path_factory.mktemp("payloads")
    async with site(where, store=where / "store") as there:
        yield there


@pytest.fixture
async def cluster(place: Site) -> AsyncIterator[Cluster]:
    # An item may be the victim of each of three kills.
    async with Cluster(settings=Settings(nats_url=place.server.url, attempts=5)) as cluster:
        yield cluster


@pytest.fixture
async def agent(place: Site, cluster: Cluster) -> AsyncIterator[AgentProcess]:
    agent = await place.agent(cluster)
    yield agent
    agent.kill_host()


def segments(*pids: int, own: bool = False) -> set[str]:
    """The inodes of shared memory that these processes use, or only of what they write to."""
    found = set()
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                if "memfd:jetmap-arena" in line and (not own or " rw-s " in line):
                    found.add(line.split()[4])
            for fd in Path(f"/proc/{pid}/fd").iterdir() if not own else ():
                if "memfd:jetmap-arena" in str(fd.readlink()):
                    found.add(str(fd.stat().st_ino))
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended, or closed the file just now.
    return found


def payloads(*sizes: int) -> list[bytes]:
    return [os.urandom(size) for size in sizes]


@pytest.mark.parametrize("largest", [16, pytest.param(64, marks=pytest.mark.slow)])
async def test_maps_and_jobs_carry_many_megabytes(
    cluster: Cluster, agent: AgentProcess, largest: int
) -> None:
    items = payloads(8 * MB, 10, 8 * MB, largest * MB, 600_000, 1)
    async with asyncio.timeout(120):
        assert await cluster.map(functions.echo, items) == items
        job = await cluster.submit(functions.echo, items)
        assert await job == items


async def test_values_from_another_host_are_decoded_as_they_arrive(
    place: Site, agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All of them at once, at the end, would hold up everything else that the caller does.
    items = payloads(*[2 * MB] * 12, 5)
    arrived: list[bool] = []
    values = Call.values

    def look(call: Call, batch: Batch, format: Format | None = None) -> list[Any]:
        arrived.append(isinstance(batch.values, Decoded))
        return values(call, batch, format)

    monkeypatch.setattr(Call, "values", look)
    settings = Settings(nats_url=place.server.url, arena_bytes=0)
    async with Cluster(settings=settings) as cluster, asyncio.timeout(PATIENCE):
        assert await cluster.map(functions.echo, items) == items
        assert not cluster._session.dispatcher._neighbours._views, "nothing was shared"
    assert arrived.count(True) >= 2


async def test_workers_and_their_agent_are_killed_with_payloads_in_flight(
    cluster: Cluster, agent: AgentProcess
) -> None:
    items, killed = payloads(*[4 * MB] * 12), 0
    views = cluster._session.dispatcher._neighbours._views

    def kill_a_worker() -> None:
        nonlocal killed
        if killed < 3:
            killed += 1
            for worker in agent.workers[:1]:
                worker.kill()

    async with asyncio.timeout(PATIENCE):
        stream = cluster.stream(functions.echo, items, kwargs={"seconds": 0.02})
        found = await outcomes(stream, kill_a_worker)
        assert [outcome.value for outcome in found] == items and killed == 3
        if sys.platform == "linux":
            await wait_until(lambda: len(views) == len(agent.workers) > 0, "they share memory")
            assert segments(os.getpid(), own=True) & segments(agent.pid)
        agent.kill_host()
        await wait_until(lambda: not views, "the memory of the agent's workers is dropped")


@pytest.mark.slow
async def test_a_killed_caller_leaves_the_agent_free(
    place: Site, cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    """Its items are nowhere else, so what was being fetched is dropped."""
    caller = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "payload_caller.py")), stdin=subprocess.PIPE, cwd=tmp_path
    )
    assert caller.stdin is not None
    caller.stdin.write(json.dumps([place.server.url, 40, 8 * MB]).encode())
    caller.stdin.write_eof()
    await place.until_busy(cluster, CORES)
    theirs = segments(caller.pid, own=True)
    assert theirs or sys.platform != "linux"
    caller.kill()
    await caller.wait()
    await place.until_busy(cluster, 0)
    there = [agent.pid, *(worker.pid for worker in agent.workers)]
    await wait_until(lambda: not theirs & segments(*there), "nobody keeps the memory of its items")
    items = payloads(4 * MB, 4 * MB)
    async with asyncio.timeout(PATIENCE):
        assert await cluster.map(functions.echo, items) == items
    dispatcher = cluster._session.dispatcher
    await wait_until(lambda: not dispatcher.memory.used, "no byte of a payload is kept")


@pytest.mark.slow
async def test_the_broker_restarts_with_payloads_in_flight(
    place: Site, cluster: Cluster, agent: AgentProcess
) -> None:
    items, told, killed = payloads(*[4 * MB] * 12), 0, asyncio.Event()

    def restart() -> None:
        nonlocal told
        told += 1
        if told == 3:
            killed.set()

    async with asyncio.timeout(120):
        stream = cluster.stream(functions.echo, items, kwargs={"seconds": 0.02})
        found = asyncio.ensure_future(outcomes(stream, restart))
        await killed.wait()
        await kill_server(place)
        await start_server(place)
        assert [outcome.value for outcome in await found] == items
