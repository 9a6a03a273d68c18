"""A client that leaves takes its map with it: over real sockets, with what functions log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from logging import ERROR
from pathlib import Path
from urllib.parse import urlencode

import pytest

from jetmap import Cluster
from served import served
from servers import FUNCTIONS, executions, starts
from waiting import PATIENCE, wait_for, wait_until
from wire import Site, chunk, request

pytestmark = pytest.mark.anyio

CORES = 2


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(tasks=FUNCTIONS, share=False, cores=CORES) as cluster:
        yield cluster


@pytest.fixture(
    scope="module",
    params=[False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["plain", "middleware"],
)
async def site(request: pytest.FixtureRequest, cluster: Cluster) -> AsyncIterator[Site]:
    """middleware: of a kind that hides from what is behind it whether the client is there."""
    async with served(cluster, middleware=request.param) as port:
        yield Site(cluster, "127.0.0.1", port)


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A client that leaves is not a fault."""
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.levelno >= ERROR] == []


def logging(log: Path) -> str:
    return "/map/logged?" + urlencode({"kwargs": json.dumps({"log": str(log)})})


async def runs(site: Site, log: Path) -> None:
    await wait_until(lambda: len(starts(log)) >= CORES, "the map runs")
    assert site.cluster.stats.maps_open == 1


async def nothing_runs(site: Site, before: int, log: Path | None = None) -> None:
    """Wait until the map is withdrawn and the cores are free; none of its items begins later."""
    stats = site.cluster.stats
    await wait_until(lambda: stats.maps_open == 0, "the map is withdrawn")
    assert stats.maps_ended["withdrawn"] == before + 1

    async def idle() -> bool:
        return sum(agent.busy for agent in site.cluster.workers) == 0

    await wait_for(idle, "the cores are free")
    begun = executions(log) if log is not None else {}
    # What the agent still held would run before this.
    assert await asyncio.wait_for(site.cluster.map("empty", list(range(200))), PATIENCE) == [
        *range(200)
    ]
    if log is not None:
        assert executions(log) == begun


async def test_a_client_that_leaves_withdraws_its_map(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = site.cluster.stats.maps_ended["withdrawn"]
    async with site.connection() as (_, writer):
        items = json.dumps([(n, 0.1) for n in range(2000)])
        writer.write(request(logging(log), items.encode(), "application/jsonl"))
        await runs(site, log)
    await nothing_runs(site, before, log)
    assert len(starts(log)) < 2000


async def test_a_long_item_does_not_outlive_its_client(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = site.cluster.stats.maps_ended["withdrawn"]
    async with site.connection() as (_, writer):
        writer.write(request(logging(log), json.dumps([(n, 600) for n in range(20)]).encode()))
        await runs(site, log)
    await nothing_runs(site, before, log)
    assert len(starts(log)) == CORES


@pytest.mark.parametrize("media", ["application/json", "application/jsonl"])
async def test_a_client_that_leaves_before_its_body_leaves_nothing(site: Site, media: str) -> None:
    """A list's request waits for its body; JSON lines are a map already."""

    async def there(gauge: str) -> bool:
        async with site.client() as client:
            return f"\njetmap_{gauge} 1.0\n" in (await client.get("/metrics")).text

    gauge = "maps_arriving" if media == "application/json" else "maps_open"
    async with site.connection() as (_, writer):
        writer.write(request("/map/empty", b"", "application/json", media))
        await wait_for(lambda: there(gauge), "the request is there")

    async def gone() -> bool:
        return not await there("maps_arriving") and site.cluster.stats.maps_open == 0

    await wait_for(gone, "nothing is left of it")
    assert await asyncio.wait_for(site.cluster.map("empty", [1, 2, 3]), PATIENCE) == [1, 2, 3]


async def test_a_client_that_leaves_behind_a_long_body_withdraws_its_map(
    site: Site, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    before = site.cluster.stats.maps_ended["withdrawn"]
    async with site.connection() as (_, writer):
        writer.write(request(logging(log), b"", "application/jsonl", "application/jsonl"))
        for _ in range(100):
            writer.write(chunk(b"[1,0.5]\n" * 10_000))
            await writer.drain()
        await runs(site, log)
    await nothing_runs(site, before, log)


async def test_a_client_that_stops_reading_and_leaves_withdraws_its_map(site: Site) -> None:
    before = site.cluster.stats.maps_ended["withdrawn"]
    body = json.dumps([20_000] * 5000).encode()
    async with site.connection() as (reader, writer):
        writer.write(request("/map/zeros", body, "application/jsonl"))
        await reader.readuntil(b"\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        done = -1
        # Until backpressure holds the map. How much the sockets take is the system's business, so
        # nothing tells but that it stands still for a while.
        while done != site.cluster.stats.items_done:
            done = site.cluster.stats.items_done
            await asyncio.sleep(0.2)  # As long as it must stand still.
        assert site.cluster.stats.maps_open == 1
    await nothing_runs(site, before)
    await wait_until(lambda: site.cluster.memory.used == 0, "its memory is free")
