"""A pool is watched while somebody looks: one subscription for all, and nothing afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jetmap.monitoring.announcer import Announcer
from jetmap.monitoring.pool_watch import LINGER_SECONDS, MOST_WAITING, PoolWatch
from simulated_pool import SimulatedPool, Work, mapped
from virtual_time import run

JOBS: Any = SimpleNamespace(waiting=list)


async def watched(pool: SimulatedPool, dispatchers: int = 2) -> tuple[PoolWatch, list[Any]]:
    found = []
    for _ in range(dispatchers):
        dispatcher = await pool.dispatcher()
        announcer = Announcer(pool._connect("announcer"), dispatcher, JOBS, "default")
        await announcer.start()
        found.append((dispatcher, announcer))
    return PoolWatch(pool._connect("watch"), found[0][0].roster, "default"), found


async def following(changes: AsyncGenerator[bytes, None]) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(await anext(changes))
    return data


def test_one_view_has_the_maps_of_all_dispatchers_within_three_seconds() -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=Work(seconds=lambda item: 0.1)) as pool:
            await pool.agent(2)
            watch, found = await watched(pool)
            running = [asyncio.ensure_future(mapped(d, list(range(200)))) for d, _ in found]
            await asyncio.sleep(3)
            changes = watch.changes()
            began = asyncio.get_running_loop().time()
            document = await following(changes)
            assert asyncio.get_running_loop().time() - began < 3
            assert len(document["maps"]) == 2 and document["totals"]["busy"] == 2
            assert document["functions"]["double"]["slot"] == 0
            change = await following(changes)
            assert "hosts" not in change and change["now"] > document["now"]
            await asyncio.gather(*running)
            await asyncio.sleep(4)
            while "maps" not in (change := await following(changes)):
                pass
            await changes.aclose()
            for _, announcer in found:
                await announcer.close()
            await watch.close()

    run(scenario())


def test_a_broker_that_falls_silent_is_away_and_the_last_that_was_known_stays() -> None:
    """A frozen or cut off broker keeps its connections for longer than callers are remembered."""

    async def scenario() -> None:
        async with SimulatedPool() as pool:
            await pool.agent(2)
            watch, found = await watched(pool)
            await asyncio.sleep(3)
            view = await watch.view()
            assert view.snapshot()["away"] is None
            began = asyncio.get_running_loop().time()
            for _, announcer in found:
                await announcer._background.close()
            await asyncio.sleep(20)
            document = view.snapshot()
            assert document["away"] == pytest.approx(began, abs=3), "since it was heard last"
            assert len(document["callers"]) == 2 and document["totals"]["cores"] == 2
            await found[0][1]._announce()
            await asyncio.sleep(2)
            document = view.snapshot()
            assert document["away"] is None and len(document["callers"]) == 1
            for _, announcer in found:
                await announcer.close()
            await watch.close()

    run(scenario())


def test_the_shards_of_a_pool_are_shown_behind_its_stream() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            await pool.agent(1, shards=2)
            watch, found = await watched(pool, 1)
            await asyncio.sleep(3)
            changes = watch.changes()
            document = await following(changes)
            while not document.get("broker", {}).get("streams"):
                document = await following(changes)
            names = [stream["name"] for stream in document["broker"]["streams"]]
            await changes.aclose()
            assert names == [f"JETMAP_WORK_default{shard}" for shard in ("", "=1", "=2")]
            await found[0][1].close()
            await watch.close()

    run(scenario())


def test_nothing_is_kept_when_nobody_looks() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            await pool.agent(1)
            watch, found = await watched(pool, 1)
            assert not watch.is_watching
            one, other = await asyncio.gather(watch.view(), watch.view())
            assert one is other and watch.is_watching
            await asyncio.sleep(LINGER_SECONDS + 5)
            assert not watch.is_watching
            changes = watch.changes()
            await following(changes)
            await asyncio.sleep(3 * LINGER_SECONDS)
            assert watch.is_watching, "a reader is there"
            await changes.aclose()
            await asyncio.sleep(LINGER_SECONDS + 5)
            assert not watch.is_watching
            await found[0][1].close()
            await watch.close()

    run(scenario())


def test_a_slow_reader_starts_anew_and_the_end_of_the_cluster_ends_it() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            await pool.agent(1)
            watch, found = await watched(pool, 1)
            changes = watch.changes()
            await following(changes)
            await asyncio.sleep(100)
            assert "maps" in await following(changes), "a whole view, for all that it missed"
            await found[0][1].close()
            await watch.close()
            with pytest.raises(StopAsyncIteration):
                while True:
                    await following(changes)

    run(scenario())


def test_a_reader_that_sleeps_takes_bounded_memory_and_hears_of_the_end() -> None:
    """A closed laptop keeps its connection, and reads nothing."""

    async def scenario() -> None:
        async with SimulatedPool() as pool:
            watch, found = await watched(pool, 1)
            changes = watch.changes()
            await following(changes)
            for _ in range(3):
                await asyncio.sleep(100)
                [reader] = watch._readers
                assert len(reader._changes) <= MOST_WAITING
            await found[0][1].close()
            await watch.close()
            with pytest.raises(StopAsyncIteration):
                await following(changes)

    run(scenario())


def test_asking_for_what_nobody_has_is_refused() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            watch, found = await watched(pool, 1)
            assert "nobody has m" in (await watch.ask("map", "m")).refusal
            await found[0][1].close()
            await watch.close()

    run(scenario())
