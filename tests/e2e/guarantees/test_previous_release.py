"""The previous release's agents with this one's callers, and the reverse.

JETMAP_TEST_PREVIOUS names the Python of an environment with that release installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from jetmap import Cluster, ItemError, Job, WorkerLost
from nodes import free_ports
from processes import end
from servers import Site
from waiting import PATIENCE, wait_for

VARIABLE = "JETMAP_TEST_PREVIOUS"
PREVIOUS = os.environ.get(VARIABLE, "")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(not PREVIOUS, reason=f"{VARIABLE} names no Python with that release"),
]

TASKS = """
import os, signal, time
from jetmap import task

@task
def double(n: int) -> int:
    return 2 * n

@task
def moody(n: int) -> int:
    if n == 7:
        raise ValueError("seven")
    if n == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.001)
    return 2 * n

@task
def untyped(value):
    return value

@task
def length(text: str) -> int:
    return len(text)

@task
def spaces(n: int) -> str:
    return " " * n
"""


@pytest.fixture
async def tasks(place: Site) -> AsyncIterator[Path]:
    file = place.place / "shared_tasks.py"
    file.write_text(TASKS)
    yield file


def from_previous(*arguments: str, place: Site) -> list[str]:
    return [PREVIOUS, "-m", "jetmap.cli", *arguments, "--nats", place.server.url]


def started(command: list[str], place: Site) -> subprocess.Popen[bytes]:
    with (place.place / "gateway.log").open("wb") as output:
        return subprocess.Popen(
            command, cwd=place.place, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


async def cluster_of_old_agents(place: Site, tasks: Path) -> Cluster:
    within = (PREVIOUS, "-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:2] + sys.argv[3:])")
    agent = place.start_agent(str(tasks), within=(*within, PREVIOUS))
    cluster = await place.cluster()
    await place.ready(cluster, agent)
    assert [p.protocol for p in cluster.workers] == [1]
    return cluster


async def test_this_releases_maps_run_on_the_previous_ones_agents(place: Site, tasks: Path) -> None:
    cluster = await cluster_of_old_agents(place, tasks)
    assert await cluster.map("double", range(20_000)) == [2 * n for n in range(20_000)]
    values = await cluster.map("moody", range(500), return_exceptions=True)
    failed = {i: type(v).__name__ for i, v in enumerate(values) if isinstance(v, Exception)}
    assert failed == {7: "ItemRaised", 9: "WorkerLost"} and isinstance(values[9], WorkerLost)
    assert [v for i, v in enumerate(values) if i not in failed] == [
        2 * n for n in range(500) if n not in failed
    ]
    assert await cluster.map("untyped", [1, "two", None, [3.0]]) == [1, "two", None, [3.0]]


async def test_this_releases_jobs_run_on_the_previous_ones_agents(place: Site, tasks: Path) -> None:
    cluster = await cluster_of_old_agents(place, tasks)
    job: Job[int, int] = await cluster.submit("double", range(2000))
    async with asyncio.timeout(PATIENCE):
        assert await job.results() == [2 * n for n in range(2000)]


async def test_the_previous_ones_agents_get_items_that_fit_into_a_message(
    place: Site, tasks: Path
) -> None:
    cluster = await cluster_of_old_agents(place, tasks)
    sizes = [10, 700_000, 3_000_000, 20]
    found = await cluster.map("length", ["x" * n for n in sizes], return_exceptions=True)
    assert [v for i, v in enumerate(found) if i != 2] == [10, 700_000, 20]
    assert isinstance(found[2], ItemError) and "upgrade jetmap there" in found[2].message
    values = await cluster.map("spaces", sizes, return_exceptions=True)
    assert [len(v) for i, v in enumerate(values) if i != 2] == [10, 700_000, 20]
    assert isinstance(values[2], ItemError) and values[2].kind == "unencodable"


async def test_the_previous_ones_callers_get_values_that_fit_into_a_message(
    place: Site, tasks: Path
) -> None:
    cluster = await place.cluster()
    await place.ready(cluster, place.start_agent(str(tasks)))
    done = await asyncio.to_thread(
        subprocess.run,
        from_previous("map", "spaces", "-", place=place),
        input="10\n700000\n3000000\n20\n",
        capture_output=True,
        text=True,
        timeout=60,
        cwd=place.place,
    )
    sizes = [len(line) - 2 for line in done.stdout.splitlines() if line != "null"]
    assert done.returncode == 1 and sizes == [10, 700_000, 20]
    assert "3,000,0" in done.stderr and "upgrade jetmap where the map was called" in done.stderr


async def test_the_previous_releases_maps_run_on_this_ones_agents(place: Site, tasks: Path) -> None:
    cluster = await place.cluster()
    await place.ready(cluster, place.start_agent(str(tasks)))
    items = "".join(f"{n}\n" for n in range(5000))
    done = await asyncio.to_thread(
        subprocess.run,
        from_previous("map", "double", "-", place=place),
        input=items,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=place.place,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(2 * n) for n in range(5000)]


async def test_the_previous_releases_gateway_uses_this_ones_agents(
    place: Site, tasks: Path
) -> None:
    cluster = await place.cluster()
    await place.ready(cluster, place.start_agent(str(tasks)))
    (port,) = free_ports(1)
    gateway = started(from_previous("api", "--port", str(port), place=place), place)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE
        ) as client:

            async def is_there() -> bool:
                try:
                    return (await client.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_for(is_there, "the gateway is ready")
            answer = await client.post("/map/double", json=list(range(5000)))
            assert answer.json() == [2 * n for n in range(5000)]
            answer = await client.post(
                "/map/moody", json=list(range(100)), params={"errors": "collect"}
            )
            assert [(e["index"], e["kind"]) for e in answer.json()["errors"]] == [
                (7, "raised"),
                (9, "lost"),
            ]
    finally:
        end(gateway)


def test_the_previous_release_is_another() -> None:
    where = "import jetmap, json; print(json.dumps(jetmap.__file__))"
    files = {
        json.loads(subprocess.run([python, "-c", where], capture_output=True, cwd="/").stdout)
        for python in (PREVIOUS, sys.executable)
    }
    assert len(files) == 2
