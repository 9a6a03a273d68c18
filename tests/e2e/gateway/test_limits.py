"""A gateway that is full says so at once and when to come again: over real sockets, real maps."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import functions
from house import House
from jetmap import Cluster
from jetmap.settings import Settings
from served import served
from servers import FUNCTIONS
from servers import Site as Place
from waiting import PATIENCE, wait_until
from wire import Site, read_answer, request

pytestmark = pytest.mark.anyio

Start = Callable[..., Any]


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(tasks=FUNCTIONS, share=False, cores=2) as cluster:
        yield cluster


@pytest.fixture
async def start(cluster: Cluster) -> AsyncIterator[Start]:
    """A gateway with these settings; afterwards it holds nothing any more."""
    async with AsyncExitStack() as stack:

        async def start(*, middleware: bool = False, **settings: Any) -> Site:
            serving = served(cluster, Settings(**settings), middleware=middleware)
            return Site(cluster, "127.0.0.1", await stack.enter_async_context(serving))

        yield start
    assert (cluster.open_maps, cluster.memory.used) == (0, 0)


def head(length: int, path: str = "/map/nap") -> bytes:
    """Return the head of a request whose body does not come yet."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


async def refused(site: Site, length: int) -> tuple[int, dict[str, str], Any]:
    """The answer to the head of a request."""
    async with site.connection() as (reader, writer):
        writer.write(head(length))
        return await read_answer(reader)


async def test_maps_up_to_the_limit_run_and_one_more_is_refused_unread(
    start: Start, tmp_path: Path
) -> None:
    site = await start(max_open_maps=2)
    gate = tmp_path / "gate"
    async with site.connection() as (_, first), site.connection() as (reader, second):
        first.write(request("/map/nap", b"[600]"))
        second.write(request("/map/gate", b'[["%s",1]]' % bytes(gate)))
        await wait_until(lambda: site.cluster.stats.maps_open == 2, "both run")
        status, headers, problem = await refused(site, 120_000_000)
        assert (status, problem["type"]) == (429, "urn:jetmap:too-many-maps")
        assert headers["content-type"] == "application/problem+json"
        assert int(headers["retry-after"]) >= 1
        assert (problem["setting"], problem["limit"]) == ("max_open_maps", 2)
        # A client that comes again when one has ended gets its answer.
        gate.touch()
        assert (await read_answer(reader))[0] == 200
        async with site.client() as client:
            again = await client.post("/map/empty", json=[1, 2])
        assert again.json() == [1, 2]


async def test_bodies_that_arrive_count_as_open(start: Start) -> None:
    site = await start(max_open_maps=2, middleware=True)
    async with site.connection() as (reader, first):
        async with site.connection() as (_, second):
            for writer in (first, second):
                writer.write(head(4) + b"[")
            async with site.client() as client:
                arriving = 0
                while arriving < 2:
                    text = (await client.get("/metrics")).text
                    arriving = int(float(text.split("\njetmap_maps_arriving ")[1].split()[0]))
            assert (await refused(site, 4))[0] == 429
        while (await refused_or_done(site)) == 429:
            pass  # The second has left; the gateway is about to notice.
        first.write(b"0 ]")
        assert (await read_answer(reader))[0] == 200


async def refused_or_done(site: Site) -> int:
    async with site.client() as client:
        return (await client.post("/map/empty", json=[1])).status_code


async def test_bodies_in_memory_have_a_limit_together(start: Start) -> None:
    site = await start(max_memory_bytes="700kB")
    memory = site.cluster.memory
    async with site.connection() as (reader, writer):
        writer.write(head(300_000, "/map/empty"))
        await wait_until(lambda: memory.used >= 300_000, "its memory is taken")
        status, headers, problem = await refused(site, 450_000)
        assert (status, problem["type"]) == (503, "urn:jetmap:memory-full")
        assert int(headers["retry-after"]) >= 1
        assert (problem["setting"], problem["limit"]) == ("max_memory_bytes", 700_000)
        assert (problem["used"], problem["wanted"]) == (300_000, 450_000)
        assert (await refused(site, 700_001))[0] == 413
        writer.write(b"[1" + b" " * 299_997 + b"]")
        status, _, document = await read_answer(reader)
        assert (status, document) == (200, [1])


@contextmanager
def gateway_process(place: Place, **variables: str) -> Iterator[tuple[int, psutil.Process]]:
    """``jetmap api``: its port, and itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jetmap.cli", "api", "--nats", place.server.url, "--port", "0"],
        stdout=subprocess.PIPE,
        env=os.environ | variables,
    )
    with process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split(b":")[-1].split(b"/")[0])
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()


@pytest.mark.slow
async def test_the_gateway_does_not_grow_by_what_it_refuses(place: Place) -> None:
    """Uploads of 30 MB while one map is open, which is the limit; they are sent before any read."""
    cluster = await place.cluster()
    await place.agent(cluster, FUNCTIONS, cores=1)
    with gateway_process(place, JETMAP_MAX_OPEN_MAPS="1", JETMAP_GRACE="1") as (port, process):
        site = Site(cluster, "127.0.0.1", port)
        async with site.connection() as (_, first), AsyncExitStack() as stack:
            first.write(request("/map/nap", b"[600]"))
            await wait_until(lambda: sum(p.busy for p in cluster.workers) == 1, "one runs")
            before = process.memory_info().rss
            body = b"[" + b"0.001," * 5_000_000
            for _ in range(2):
                reader, writer = await stack.enter_async_context(site.connection())
                writer.write(head(len(body) + 100) + body)
                assert (await read_answer(reader))[0] == 429
                await writer.drain()
            assert process.memory_info().rss - before < 25 << 20


# In Python


async def test_unread_results_of_all_maps_have_a_limit(place: Place) -> None:
    limit = 2_000_000
    settings = Settings(nats_url=place.server.url, max_memory_bytes=limit)
    async with Cluster(settings=settings) as cluster, AsyncExitStack() as stack:
        await place.agent(cluster)
        streams = [cluster.stream(functions.zeros, [20_000] * 1500) for _ in range(4)]
        for stream in streams:
            await stack.enter_async_context(stream)
            assert (await anext(stream)).ok
        await wait_until(lambda: cluster.memory.is_full, "it is full")
        assert await cluster.map(functions.empty, range(3000)) == list(range(3000))
        # What was on its way comes on top; without a limit, each would have 16 MiB.
        assert cluster.memory.used < 40_000_000
        for stream in streams:
            assert len([outcome async for outcome in stream]) == 1499
        assert cluster.memory.used == 0


# The end of a gateway


@pytest.mark.slow
def test_a_request_that_outlives_the_grace_is_told_to_come_again(house: House) -> None:
    """One whose items run, and one whose body is still on its way."""
    up = house.up("--grace", "1")
    port = int(up.url.rsplit(":", 1)[1])

    def is_amidst() -> bool:
        with urllib.request.urlopen(f"{up.url}/metrics", timeout=PATIENCE) as answer:
            return up.busy == 2 and b"\njetmap_maps_arriving 1.0" in answer.read()

    async def go() -> list[Any]:
        async with AsyncExitStack() as stack:
            readers = []
            for body, length in ((b"[30,30]", 7), (b"[30", 4)):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                writer.write(head(length, "/map/slow") + body)
                readers.append(reader)
            await wait_until(is_amidst, "two items run, and a body arrives")
            up.process.send_signal(signal.SIGTERM)
            return [await read_answer(reader) for reader in readers]

    house.descendants(up.process)
    answers = asyncio.run(go())
    assert up.process.wait(PATIENCE) == 0
    for status, headers, problem in answers:
        assert (status, problem["status"]) == (503, 503)
        assert headers["content-type"] == "application/problem+json"
        assert int(headers["retry-after"]) >= 1
    assert "Traceback" not in house.said, house.said
    house.nothing_is_left()
