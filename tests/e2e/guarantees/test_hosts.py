"""Several hosts in one pool: agents of their own, some in network namespaces of their own."""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest

import functions
from jetmap import UnknownFunction
from net import Net, inside
from servers import Site, presence
from waiting import wait_until

pytestmark = pytest.mark.anyio


def tasks_file(place: Site, name: str, functions: dict[str, str]) -> str:
    """A tasks file; functions: the body of each."""
    directory = place.place / name
    directory.mkdir()
    lines = ["from jetmap import task\n"]
    for function, body in functions.items():
        lines.append(f"@task\ndef {function}(n: int) -> str:\n    {body}\n")
    file = directory / "host_tasks.py"
    file.write_text("\n".join(lines))
    return str(file)


async def test_hosts_with_different_functions_share_a_pool(place: Site) -> None:
    left = tasks_file(place, "left", {"here": "return 'left'", "both": "return 'a'"})
    right = tasks_file(place, "right", {"there": "return 'right'", "both": "return 'b'"})
    cluster = await place.cluster()
    agents = [place.start_agent(tasks, cores=1) for tasks in (left, right)]
    await place.ready(cluster, *agents)
    assert len({p.offer for p in cluster.workers}) == 2
    here, there, both = await asyncio.gather(
        cluster.map("here", range(200)),
        cluster.map("there", range(200)),
        cluster.map("both", range(200)),
    )
    assert here == ["left"] * 200 and there == ["right"] * 200
    assert set(both) <= {"a", "b"} and len(both) == 200
    alive = {status.info.name: status.cores for status in cluster.functions if status.alive}
    assert alive == {"here": 1, "there": 1, "both": 2}
    with pytest.raises(UnknownFunction):
        await cluster.map("nowhere", [1])


@pytest.mark.slow
async def test_two_versions_side_by_side(place: Site) -> None:
    # They compute for so long.
    body = "__import__('time').sleep(0.005); return '{}'"
    old = tasks_file(place, "old", {"version": body.format("old"), "gone": "return 'old'"})
    new = tasks_file(place, "new", {"version": body.format("new")})
    cluster = await place.cluster()
    first = place.start_agent(old, "--version", "1")
    await place.ready(cluster, first)
    assert set(await cluster.map("version", range(20))) == {"old"}
    # A map is under way when the newer one comes: its later chunks go there.
    second = place.start_agent(new, "--version", "2")
    seen: list[str] = []
    async with cluster.stream("version", itertools.count()) as stream:
        async for outcome in stream:
            seen.append(outcome.value)
            if seen[-50:] == ["new"] * 50:
                break
    assert seen[0] == "old"
    await place.ready(cluster, second)
    ranks = [presence(cluster, agent) for agent in (first, second)]
    assert ranks[0] is not None and ranks[1] is not None and ranks[0].rank < ranks[1].rank
    assert set(await cluster.map("version", range(20))) == {"new"}
    # What only the old one has still runs there; and it takes over when the new one goes.
    assert set(await cluster.map("gone", range(20))) == {"old"}
    second.process.terminate()
    await wait_until(lambda: presence(cluster, second) is None, "the new one has gone")
    assert set(await cluster.map("version", range(20))) == {"old"}


@pytest.mark.slow
async def test_what_waits_for_a_version_that_is_gone_moves_to_another(place: Site) -> None:
    # They compute for so long.
    body = "__import__('time').sleep(0.02); return '{}'"
    old = tasks_file(place, "old", {"version": body.format("old")})
    new = tasks_file(place, "new", {"version": body.format("new")})
    cluster = await place.cluster()
    first = place.start_agent(old, "--version", "1")
    await place.ready(cluster, first)
    second = place.start_agent(new, "--version", "2", cores=1)
    await place.ready(cluster, second)
    running = asyncio.ensure_future(cluster.map("version", range(300)))
    await wait_until(lambda: cluster.stats.items_done > 20, "the map runs")
    second.kill_host()
    versions = await running
    assert len(versions) == 300 and set(versions) == {"old", "new"}


@pytest.mark.slow
async def test_agents_on_other_hosts(net: Net, wide: Site) -> None:
    cluster = await wide.cluster()
    agents = [wide.start_agent(cores=1, within=inside(net.host())) for _ in range(3)]
    await wide.ready(cluster, *agents)
    assert await cluster.map(functions.nap, [0.005] * 300) == [0.005] * 300
    for found in await wide.workers(cluster):
        assert sum(core.chunks for core in found.workers) > 0
    assert await cluster.map(functions.empty, range(20_000)) == list(range(20_000))
    payloads = [os.urandom(size) for size in (8_000_000, 10, 3_000_000, 600_000, 3_000_000)]
    assert await cluster.map(functions.echo, payloads) == payloads
