"""Bad input: the caller hears in a sentence what to do, and nobody else notices anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import (
    BrokerUnreachable,
    Cluster,
    ConfigurationError,
    ItemInvalid,
    MapTimeout,
    NoWorkers,
    TopologyMismatch,
    Unencodable,
    UnknownFunction,
    WorkerStartFailed,
)
from jetmap.nats.auth import Auth
from jetmap.nats.connection import Connection
from jetmap.settings import Settings
from processes import run_python
from servers import FUNCTIONS, Site, check, site
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("site"), user="u", password="right") as there:
        yield there


def settings(place: Site, password: str = "right", **options: Any) -> Settings:
    return Settings.load(
        nats_url=place.server.url, nats_user="u", nats_password=password, **options
    )


@pytest.fixture(scope="module")
async def shared(place: Site) -> AsyncIterator[Cluster]:
    password = place.place / "password"
    password.write_text("right")
    access = ("--nats-user", "u", "--nats-password-file", str(password))
    async with Cluster(settings=settings(place)) as cluster:
        await place.agent(cluster, FUNCTIONS, *access)
        yield cluster


@pytest.fixture
async def cluster(
    shared: Cluster, place: Site, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Cluster]:
    """While the test does its worst, another map runs; no worker and no connection is lost."""
    workers = {worker.pid for worker in place.agents[0].workers}
    other = asyncio.ensure_future(shared.map(functions.spin, [0.002] * 50))
    yield shared
    assert await other == [0.002] * 50
    assert {worker.pid for worker in place.agents[0].workers} == workers
    assert shared.connected and shared.stats.maps_open == 0
    assert not [r for r in caplog.get_records("call") if r.levelno >= logging.WARNING]
    said = place.agents[0].said
    assert "ERROR" not in said and "WARNING" not in said, said


# What cannot be reached


async def test_a_wrong_password(place: Site, cluster: Cluster) -> None:
    with pytest.raises(BrokerUnreachable) as caught:
        await Cluster.start(settings=settings(place, "secret-but-wrong"))
    assert "refuse" in str(caught.value) and "secret-but-wrong" not in str(caught.value)


async def test_a_stream_that_differs(place: Site, cluster: Cluster) -> None:
    admin = await admin_of(place)
    theirs = {
        "name": "JETMAP_WORK_theirs",
        "subjects": ["jetmap.work.theirs.>"],
        "retention": "limits",
        "max_age": 60_000_000_000,
    }
    await admin.api("STREAM.CREATE.JETMAP_WORK_theirs", theirs)
    before = (await admin.api("STREAM.INFO.JETMAP_WORK_theirs"))["config"]
    with pytest.raises(TopologyMismatch) as caught:
        await Cluster.start(settings=settings(place, pool="theirs"))
    said = str(caught.value)
    assert "retention is 'limits', not 'workqueue'" in said and "max_age" in said
    assert (await admin.api("STREAM.INFO.JETMAP_WORK_theirs"))["config"] == before
    await admin.close()


async def admin_of(place: Site) -> Connection:
    return await Connection.open(
        [place.server.url], name="admin", auth=Auth.of(settings(place)), timeout=PATIENCE
    )


async def test_subjects_that_are_another_streams(place: Site, cluster: Cluster) -> None:
    admin = await admin_of(place)
    await admin.api("STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["jetmap.work.taken.>"]})
    with pytest.raises(Exception, match="overlap") as caught:
        await Cluster.start(settings=settings(place, pool="taken"))
    assert type(caught.value).__module__.startswith("jetmap.")
    await admin.close()


async def test_no_function(place: Site, cluster: Cluster) -> None:
    with pytest.raises(UnknownFunction, match=r"offered now: add, .*echo, empty"):
        await cluster.map("nobody_has_this", [1])


@pytest.mark.slow
async def test_known_but_no_worker(place: Site) -> None:
    async with Cluster(settings=settings(place, pool="passing")) as passing:
        password = place.place / "password"
        password.write_text("right")
        access = ("--nats-user", "u", "--nats-password-file", str(password))
        agent = await place.agent(passing, FUNCTIONS, *access, "--pool", "passing")
        assert await passing.map(functions.empty, [1]) == [1]
        agent.process.terminate()
        await wait_until(lambda: not passing.workers, "it has gone")
        with pytest.raises(NoWorkers, match="jetmap worker"):
            await passing.map(functions.empty, [1])


# Tasks files


def test_a_bad_tasks_file(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(:\n    pass\n")
    code = (
        "from jetmap import Cluster\n"
        'if __name__ == "__main__":\n'
        "    with Cluster(tasks='bad.py', cores=1).sync:\n"
        "        pass\n"
    )
    done = run_python(code, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "WorkerStartFailed" in done.stderr and "bad.py:1: invalid syntax" in done.stderr, last


async def test_a_tasks_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        await Cluster.start(tasks=str(tmp_path / "none.py"), inline=True)
    with pytest.raises((ConfigurationError, WorkerStartFailed), match="no such file"):
        await Cluster.start(tasks=str(tmp_path / "none.py"), share=False)


# Items and values


async def test_items_that_do_not_fit(cluster: Cluster) -> None:
    items: list[Any] = [*range(100), "7", 7.5, None, [], {}, float("nan"), b"7", True, *range(100)]
    values = await cluster.map("is_prime", items, return_exceptions=True)
    bad = range(100, 108)
    expected = [None if i in bad else functions.is_prime(n) for i, n in enumerate(items)]
    check(values, expected, dict.fromkeys(bad, ItemInvalid))
    with pytest.raises(ItemInvalid) as caught:
        await cluster.map("is_prime", items)
    assert caught.value.index == 100 and "int" in caught.value.message


async def test_items_that_cannot_be_encoded(cluster: Cluster) -> None:
    items: list[Any] = [*range(50), object(), 2**64, *range(50)]
    values = await cluster.map(functions.empty, items, return_exceptions=True)
    check(values, items, {50: Unencodable, 51: Unencodable})
    found = [o async for o in cluster.stream(functions.empty, iter(items), ordered=True)]
    assert [o.index for o in found if not o.ok] == [50, 51] and len(found) == 102


async def test_values_that_cannot_be_encoded(cluster: Cluster) -> None:
    values = await cluster.map(functions.unencodable, range(100), return_exceptions=True)
    check(values, range(100), dict.fromkeys(range(5, 100, 10), Unencodable))
    assert "cannot be encoded" in str(values[5])


async def test_items_at_the_edges_of_parts_and_messages(cluster: Cluster) -> None:
    part, room = 524_288, (1 << 20) - 32_768
    sizes = [edge + d for edge in (262_144, part, room, 2 * part) for d in (-6, -5, -4, -1, 0, 1)]
    found = await cluster.map(functions.echo, [b"x" * size for size in sizes])
    assert [len(value) for value in found] == sizes


async def test_deep_and_cyclic_items(cluster: Cluster) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    values = await cluster.map("empty", [1, deep, cyclic, 2], return_exceptions=True)
    check(values, [1, None, None, 2], {1: Unencodable, 2: Unencodable})
    while deep:  # Else its end would be a recursion of its own.
        deep = deep[0]


# Iterables


async def test_an_async_iterable_that_never_goes_on(cluster: Cluster) -> None:
    closed = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    with pytest.raises(MapTimeout):
        async with cluster.stream(functions.empty, items(), timeout=0.3) as stream:
            async for outcome in stream:
                assert outcome.value == 1
    await asyncio.wait_for(closed.wait(), PATIENCE)


async def test_what_is_no_list(cluster: Cluster) -> None:
    with pytest.raises(TypeError):
        await cluster.map(functions.empty, 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        async with cluster.stream(functions.empty, 7) as stream:  # type: ignore[arg-type]
            async for _ in stream:
                pass
