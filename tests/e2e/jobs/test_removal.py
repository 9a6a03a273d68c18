"""The remains of a job after its end: deleted, expired, or never begun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetmap import Cluster
from jetmap.errors import UnknownJob
from jetmap.jobs import monitor, removal
from real_jobs import submit, until_over, upload
from servers import Site, site
from waiting import wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, store=tmp_path / "store") as there:
        yield there


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget removed jobs soon."""
    monkeypatch.setattr(removal, "TOMBSTONE_SECONDS", 1.0)
    monkeypatch.setattr(monitor, "SWEEP_SECONDS", 1.0)


async def stays_unknown(clusters: list[Cluster], *jobs: str) -> None:
    """Check that it is unknown, even once its tombstone is removed."""
    store = clusters[0].jobs.store
    taken_away = 0.0
    deadline = time.monotonic() + 30
    while not taken_away or time.monotonic() < taken_away + 3:
        assert time.monotonic() < deadline, "their records stay"
        for job in jobs:
            for cluster in clusters:
                with pytest.raises(UnknownJob):
                    await cluster.jobs.get(job)
        if not taken_away and [await store.read(job) for job in jobs] == [(None, 0)] * len(jobs):
            taken_away = time.monotonic()
        await asyncio.sleep(0.1)
    for cluster in clusters:
        page, _ = await cluster.jobs.list(limit=1000)
        assert not {record.id for record in page} & set(jobs)


async def test_a_deleted_job_stays_unknown(place: Site, hasty: None) -> None:
    one, other = await place.cluster(), await place.cluster()
    await place.agent(one)
    over = await submit(one, "empty", [1, 2])
    await until_over(one, over.id)
    runs = await submit(one, "nap", [0.05] * 1000)
    for record in (over, runs):
        await other.jobs.delete(record.id)
    await stays_unknown([one, other], over.id, runs.id)


async def test_an_aborted_upload_stays_unknown(place: Site, hasty: None) -> None:
    one, other = await place.cluster(), await place.cluster()
    await place.agent(one)
    begun = await upload(one, [1, 2], key="k")
    await begun.abort()
    await stays_unknown([one, other], begun.id)


async def test_an_expired_job_is_known_until_it_is_deleted(place: Site) -> None:
    one = await place.cluster()
    await place.agent(one)
    record = await (await upload(one, [1], ttl=1)).commit()

    async def expired() -> bool:
        return (await one.jobs.get(record.id)).state == "expired"

    await wait_for(expired, "it expires", 20)
    await one.jobs.delete(record.id)
    with pytest.raises(UnknownJob):
        await one.jobs.get(record.id)
    with pytest.raises(UnknownJob):
        await one.jobs.delete(record.id)


async def test_the_time_that_it_is_kept_begins_at_its_end(place: Site) -> None:
    one = await place.cluster()
    await place.agent(one)
    begun = await one.jobs.begin("nap", format="json", ttl=2)
    await begun.put([b"0.05"] * 160)
    await begun.commit()
    began = time.monotonic()
    record = await until_over(one, begun.id)
    assert time.monotonic() - began > 3, "it ran longer than it is kept"
    assert record.state == "succeeded"
    page = await one.jobs.outcomes(record).page(0, 1000, record.total)
    assert sum(batch.count for batch in page.batches) == 160

    async def gone() -> bool:
        state = (await one.jobs.get(begun.id)).state
        return state == "expired" and begun.id not in await one.jobs.store.jobs_in("OUTCOMES")

    await wait_for(gone, "it expires", 20)
