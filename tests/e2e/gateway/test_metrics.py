"""Metrics: what each counts, that nobody can make their number grow, and what promtool says."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

import functions
from fake_cluster import FakeCluster, gateway
from jetmap.dispatch.roster import Roster
from jetmap.wire.messages import encode
from jetmap.wire.presence import Presence
from servers import CORES, FUNCTIONS, AgentProcess, Cluster, Site
from tools import need_tool
from waiting import wait_for, wait_until

pytestmark = pytest.mark.anyio

Samples = dict[tuple[str, ...], float]


def double(n: int) -> int:
    return 2 * n


def samples(text: str) -> Samples:
    """Return the samples by name and label values."""
    return {
        (s.name, *(s.labels[name] for name in sorted(s.labels))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


# Counting, without a cluster


def test_an_announcement_of_an_earlier_version_has_no_counters() -> None:
    roster = Roster()
    old = Presence("a", "h", 1, "default", "o", "v", 1, 2, 2, 0, False, False, [], [])
    fields = msgspec.msgpack.decode(encode(old))
    for name in ("items", "crashes", "recycled", "start_failures"):
        fields.pop(name, None)
    roster.on_presence(msgspec.convert(fields, Presence), 0.0)
    assert roster.counts.items == {}


# Over HTTP


async def test_no_client_makes_series() -> None:
    """Names, paths, methods and headers of a client's choice are in no label."""
    async with gateway(FakeCluster(double)) as client:
        before = samples((await client.get("/metrics")).text)
        for number in range(50):
            await client.post(f"/map/random_{number}", json=[1])
            await client.get(f"/no/such/path/{number}")
            await client.request(f"METHOD{number}", "/map/double")
            await client.get(f"/jobs/job{number}")
        after = samples((await client.get("/metrics")).text)
        pool = (await client.get("/metrics/pool")).text
    new = {key for key in after.keys() - before.keys()}
    assert {name for name, *_ in new} <= {"jetmap_requests_total", "jetmap_requests_refused_total"}
    assert len(new) < 12 and not any("random" in part for key in after for part in key)
    assert "random" not in pool
    assert after["jetmap_requests_refused_total", "unknown-function"] == 50


@pytest.mark.parametrize("path", ["/metrics", "/metrics/pool"])
async def test_promtool_finds_nothing(path: str) -> None:
    promtool = need_tool("promtool")
    cluster = FakeCluster(double)
    cluster.counts.heard("a", [("double", "ok", 3)], [("double", "SIGSEGV", 1)], 1, 1)
    async with gateway(cluster) as client:
        await client.post("/map/double", json=[1, "x"])
        text = (await client.get(path)).text
    checked = await asyncio.create_subprocess_exec(
        *(promtool, "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await checked.communicate(text.encode())
    assert (checked.returncode, said.decode()) == (0, "")


# For real


async def test_maps_of_any_caller_are_counted(
    home: Site, home_cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    """The agent counts for every dispatcher of its pool; chunks are counted where they are cut."""
    other = await home.cluster()
    before = other.pool_counts.items["odd_only", "ok"]
    sent, done = home_cluster.stats.chunks_sent, home_cluster.stats.chunks
    await home_cluster.map(functions.odd_only, [1, 2, 3, 5], return_exceptions=True)
    assert home_cluster.stats.chunks_sent - sent == home_cluster.stats.chunks - done > 0
    await wait_until(
        lambda: other.pool_counts.items["odd_only", "ok"] == before + 3, "three are ok"
    )
    assert other.pool_counts.items["odd_only", "raised"] >= 1
    assert other.stats.chunks == 0


async def test_a_crash_is_counted_and_logged(
    home: Site, home_cluster: Cluster, agent: AgentProcess
) -> None:
    """The log has function, item, signal and memory; every process's metrics count it."""
    await home_cluster.map(functions.hurt, [(1, "segfault"), (2, "")], return_exceptions=True)
    await wait_until(
        lambda: home_cluster.pool_counts.crashes["hurt", "SIGSEGV"] >= 1, "the agent tells of it"
    )
    assert home_cluster.stats.crashes["hurt", "SIGSEGV"] >= 1

    async def said() -> str:
        lines = [line for line in agent.said.splitlines() if "WARNING" in line and "hurt" in line]
        return lines[0] if lines else ""

    line = await wait_for(said, "the agent logs it")
    assert "hurt, item 0 of map" in line and "SIGSEGV" in line and "MiB" in line


async def test_an_agent_serves_its_own_metrics(home: Site, home_cluster: Cluster) -> None:
    agent = await home.agent(home_cluster, FUNCTIONS, "--metrics-port", "0")
    (url,) = re.findall(r"metrics of this agent: (http://127.0.0.1:\d+/metrics)", agent.said)
    async with httpx.AsyncClient() as client:
        own = samples((await client.get(url)).text)
    assert own["jetmap_agent_serving",] == own["jetmap_agent_broker_connected",] == 1
    assert sum(own["jetmap_agent_cores", kind] for kind in ("idle", "busy")) == CORES
    # The tests that share the server find one agent.
    agent.signal(signal.SIGTERM)
    await wait_until(agent.has_exited, "it has left")
