"""Room in the store, where several ask for it at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jetmap import Cluster
from jetmap.errors import StoreFull
from jetmap.jobs.outcomes import StoredOutcomes
from jetmap.jobs.record import Record
from jetmap.settings import Settings
from real_jobs import carrier, until_over, upload
from servers import Site, site
from waiting import wait_for

pytestmark = pytest.mark.anyio

ROOM = 1_000_000


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, store=tmp_path / "store") as there:
        yield there


async def limited(place: Site) -> Cluster:
    settings = Settings.load(nats_url=place.server.url, job_store_bytes=ROOM)
    return await place.cluster(settings=settings)


@pytest.mark.parametrize("gateways", [1, 2])
async def test_of_two_at_once_the_first_has_the_last_room(place: Site, gateways: int) -> None:
    clusters = [await limited(place) for _ in range(gateways)]
    await place.agent(clusters[0])
    for round in range(15):
        begun = await asyncio.gather(
            *(upload(clusters[n % gateways], [1], reserve=ROOM * 6 // 10) for n in range(2)),
            return_exceptions=True,
        )
        refused = [found for found in begun if isinstance(found, StoreFull)]
        assert len(refused) == 1, f"round {round}: {begun}"
        assert (refused[0].limit, refused[0].wanted) == (ROOM, ROOM * 6 // 10)
        for found in begun:
            if not isinstance(found, BaseException):
                await found.abort()


async def test_of_two_that_grow_at_once_one_has_the_last_room(place: Site) -> None:
    clusters = [await limited(place) for _ in range(2)]
    await place.agent(clusters[0])
    for cluster in clusters:
        await cluster.jobs._ensure()

    async def running(cluster: Cluster, id: str) -> tuple[Record, int]:
        # Owned by nobody who could carry it, and not to be taken over.
        record = Record(
            id=id, function="empty", format="json", state="failed", reserved=ROOM // 4, ttl=900
        )
        return record, await cluster.jobs.store.write(record, 0)

    for round in range(10):
        jobs = [await running(clusters[n], f"round{round}job{n}") for n in range(2)]
        for cluster in clusters:
            await cluster.jobs.list()

        async def grow(cluster: Cluster, record: Record, seq: int) -> int:
            async def write(wanted: Record) -> int:
                return await cluster.jobs.store.write(wanted, seq)

            return await cluster.jobs._quota.room(record, ROOM * 6 // 10, write)

        grown = await asyncio.gather(
            *(grow(clusters[n], *jobs[n]) for n in range(2)), return_exceptions=True
        )
        refused = [found for found in grown if isinstance(found, StoreFull)]
        assert len(refused) == 1, f"round {round}: {grown}"
        for record, _ in jobs:
            await clusters[0].jobs.delete(record.id)
        for cluster in clusters:
            await cluster.jobs.list()


async def test_what_was_asked_for_is_all_there_is(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    begun = await cluster.jobs.begin("zeros", format="json", reserve=200_000)
    await begun.put([b"100000"] * 40)
    await begun.commit()
    record = await until_over(cluster, begun.id, 40)
    assert record.state == "failed", record
    assert "200,000" in (record.reason or "") and "reserved" in (record.reason or "")
    begun = await cluster.jobs.begin("zeros", format="json", reserve=2_000_000)
    await begun.put([b"1000"] * 40)
    await begun.commit()
    record = await until_over(cluster, begun.id, 40)
    assert record.state == "succeeded" and record.reserved < 200_000, record


@pytest.mark.slow
async def test_what_was_stored_before_a_takeover_counts(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    owner = await carrier(place, ["nap", [0.01234] * 600, None])
    outcomes = StoredOutcomes(cluster.jobs.store, owner.job, "json")

    async def more_than_it_wrote() -> bool:
        done, _ = await outcomes.counts()
        return done >= (await cluster.jobs.get(owner.job)).done + 100

    await wait_for(more_than_it_wrote, "outcomes are stored", 20)
    await owner.kill()
    record = await until_over(cluster, owner.job, 40)
    assert (record.state, record.done, record.epoch) == ("succeeded", 600, 2)
    index = await outcomes.refresh()
    assert record.stored == record.reserved == pytest.approx(index.stored, rel=0.03)


async def test_a_cancelled_job_says_what_its_results_hold(place: Site) -> None:
    one, other = await place.cluster(), await place.cluster()
    await place.agent(one)
    begun = await one.jobs.begin("nap", format="json")
    await begun.put([b"0.002"] * 5000)
    await begun.commit()

    async def runs() -> bool:
        return (await one.jobs.get(begun.id)).done > 0

    await wait_for(runs, "it runs")
    await asyncio.sleep(0.7)  # So that much was stored since its progress was written down.
    cancelled = await other.jobs.cancel(begun.id)
    deadline = time.monotonic() + 8

    async def counts() -> tuple[int, int]:
        return await StoredOutcomes(one.jobs.store, begun.id, "json").counts()

    at_once = await counts()
    assert cancelled.done >= at_once[0] - 100, "only what was on its way may lack"

    async def agree() -> bool:
        record = await one.jobs.get(begun.id)
        return (record.done, record.failed) == await counts() and record.reserved == record.stored

    await wait_for(agree, "status and results agree", deadline - time.monotonic())
    await asyncio.sleep(deadline - time.monotonic())
    assert await agree()
    assert (await one.jobs.get(begun.id)).state == "cancelled"


def test_a_record_of_before_is_read() -> None:
    old: dict[str, Any] = {"id": "a", "function": "f", "format": "json", "reserved": 5}
    record = msgspec.json.decode(msgspec.json.encode(old), type=Record)
    assert not record.is_fixed and record.claimed == 0
