"""A cluster of three NATS servers whose leader is killed, in the middle of maps and of a job."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster
from load import Load
from nodes import PASSWORD, Node, running, start_nodes
from processes import end, nothing_left
from real_jobs import check, jobs_items, submit, until_over, until_started
from servers import AgentProcess, Site, starts
from waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Node]]:
    with nothing_left(), running() as nodes:
        start_nodes(tmp_path, 3, nodes)
        for node in nodes:
            await wait_until(lambda node=node: node.is_healthy, "the servers are healthy")
        monkeypatch.setenv("JETMAP_NATS_USER", "jetmap")
        monkeypatch.setenv("JETMAP_NATS_PASSWORD", PASSWORD)
        yield nodes


def details(nodes: list[Node]) -> Iterator[dict[str, Any]]:
    """Yield what each node that is alive knows of its streams."""
    for node in nodes:
        if node.process.poll() is not None:
            continue
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{node.monitor}/jsz?streams=1", timeout=5
            ) as answer:
                found = json.load(answer)
        except OSError:
            continue
        for account in found.get("account_details", []):
            yield from account.get("stream_detail", [])


def leader(nodes: list[Node], stream: str) -> Node | None:
    """The node that leads a stream, by the first that is alive and knows."""
    for detail in details(nodes):
        if detail["name"] == stream and (name := detail["cluster"].get("leader")):
            return nodes[int(name.rpartition("-")[2])]
    return None


async def kill_leader(nodes: list[Node], stream: str) -> Node:
    await wait_until(lambda: leader(nodes, stream) is not None, "somebody leads")
    led = leader(nodes, stream)
    assert led is not None
    led.process.send_signal(signal.SIGKILL)
    led.process.wait()
    return led


@asynccontextmanager
async def joined(three: list[Node], place: Path) -> AsyncIterator[Cluster]:
    """A cluster with an agent that is ready."""
    url = ",".join(node.url for node in three)
    async with Cluster(url) as cluster:
        agent = start_agent(place, url)
        try:
            await wait_until(
                lambda: any(p.ready == p.cores for p in cluster.workers),
                "the agent is ready",
                show=lambda: agent.said,
            )
            yield cluster
        finally:
            end(agent.process)


@pytest.mark.slow
async def test_a_map_and_a_job_go_on(three: list[Node], tmp_path: Path) -> None:
    async with joined(three, tmp_path) as cluster:
        log = tmp_path / "log"
        record = await submit(cluster, "logged", jobs_items(600, 0.01), {"log": str(log)})
        await until_started(log, 50)
        running = asyncio.ensure_future(
            cluster.map(functions.work, [functions.Work(n, 4000) for n in range(1500)])
        )
        await wait_until(lambda: cluster.stats.items_done > 300, "the map runs")
        killed = await kill_leader(three, "JETMAP_JOBS_default")
        again = len(starts(log))
        assert await running == list(range(1500))
        record = await until_over(cluster, record.id)
        await check(cluster, record, list(range(600)))
        killed.start_again()
        await wait_until(lambda: killed.is_healthy, "it is back")
        assert len(starts(log)) - 600 <= 300, again


async def test_a_map_goes_on_without_the_leader_of_its_chunks(
    three: list[Node], tmp_path: Path
) -> None:
    async with joined(three, tmp_path) as cluster, Load(cluster) as load:
        killed = await kill_leader(three, "JETMAP_WORK_default")
        await load.goes_on()
        killed.start_again()
        await wait_until(lambda: killed.is_healthy, "it is back")
        await load.goes_on()


@pytest.mark.slow
async def test_maps_go_on_without_the_server_of_a_shard(
    three: list[Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chunks are lost with it: they are in the memory of that server only."""
    monkeypatch.setenv("JETMAP_WORK_SHARDS", "3")
    shards = [f"JETMAP_WORK_default={number}" for number in (1, 2, 3)]
    works = [[functions.Work(n, 4000) for n in range(m, m + 150)] for m in range(0, 1350, 150)]

    def held(shard: str) -> int:
        """The number of chunks in a shard."""
        return max(
            (d["state"]["messages"] for d in details(three) if d["name"] == shard), default=0
        )

    async with joined(three, tmp_path) as cluster:
        led = [leader(three, shard) for shard in shards]
        assert None not in led and len({id(node) for node in led}) == 3, "each has its server"
        running = [asyncio.ensure_future(cluster.map(functions.work, items)) for items in works]
        await wait_until(lambda: cluster.stats.items_done > 200, "the maps run")
        killed = await kill_leader(three, max(shards, key=held))
        results = await asyncio.gather(*running)
        assert results == [[work.value for work in items] for items in works]
        killed.start_again()
        await wait_until(lambda: killed.is_healthy, "it is back")
        again = [cluster.map(functions.work, items[:20]) for items in works]
        assert await asyncio.gather(*again) == [values[:20] for values in results]


def start_agent(place: Path, url: str) -> AgentProcess:
    site = Site.__new__(Site)  # Only its way to start an agent is wanted: the servers are ours.
    site.place, site.agents, site.mark = place, [], ""
    return site.start_agent(url=url)
