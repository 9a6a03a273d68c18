"""Jobs that are removed, with everything stored for them."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.errors import UnknownJob
from jetmap.jobs.monitor import SWEEP_SECONDS
from jetmap.jobs.removal import TOMBSTONE_SECONDS
from jetmap.jobs.service import Jobs
from simulated_jobs import JobPool, ended, in_a_pool, submitted
from simulated_pool import FUNCTION


async def left(jobs: object, id: str) -> list[str]:
    return [kind for kind in ("INPUT", "OUTCOMES") if id in await jobs.store.jobs_in(kind)]  # type: ignore[attr-defined]


@in_a_pool(gateways=2, seconds=0.5)
async def test_a_running_job_is_ended_and_removed_on_every_gateway(
    pool: JobPool, jobs: Jobs, other: Jobs
) -> None:
    id = (await submitted(jobs, [1] * 50, key="k")).id
    await asyncio.sleep(3)
    await other.delete(id)
    for gateway in (jobs, other):
        with pytest.raises(UnknownJob):
            await gateway.get(id)
    with pytest.raises(UnknownJob):
        await other.delete(id)
    await asyncio.sleep(TOMBSTONE_SECONDS + 2 * SWEEP_SECONDS)
    assert await left(jobs, id) == []
    record, _ = await jobs.store.read(id)
    assert record is None
    assert (await submitted(other, [1] * 50, key="k")).id != id


@in_a_pool()
async def test_an_aborted_upload_leaves_nothing(pool: JobPool, jobs: Jobs) -> None:
    upload = await jobs.begin(FUNCTION, format="json")
    await upload.put([b"1"] * 16_384 * 12)
    assert await left(jobs, upload.id) == ["INPUT"]
    await upload.abort()
    await upload.abort()
    assert await left(jobs, upload.id) == []
    with pytest.raises(UnknownJob):
        await jobs.get(upload.id)


@in_a_pool()
async def test_an_upload_that_was_queued_meanwhile_stays(pool: JobPool, jobs: Jobs) -> None:
    record = await submitted(jobs, [1, 2])
    await jobs._removal.drop(record)
    assert (await ended(jobs, record.id)).state == "succeeded"


@in_a_pool()
async def test_a_tombstone_is_not_laid_over_a_newer_record(pool: JobPool, jobs: Jobs) -> None:
    record = await submitted(jobs, [1, 2])
    _, seq = await jobs.store.read(record.id)
    assert not await jobs._removal.tombstone(record, seq - 1)
    assert (await ended(jobs, record.id)).state == "succeeded"


@in_a_pool(seconds=0.5)
async def test_the_time_that_a_job_is_kept_begins_at_its_end(pool: JobPool, jobs: Jobs) -> None:
    id = (await submitted(jobs, [1] * 60, ttl=20.0)).id
    record = await ended(jobs, id)
    assert record.finished - record.created > 25, "it ran longer than it is kept"
    await asyncio.sleep(15)
    page = await jobs.outcomes(record).page(0, 1000, record.total)
    assert sum(batch.count for batch in page.batches) == 60
    await asyncio.sleep(10 + SWEEP_SECONDS)
    assert (await jobs.get(id)).state == "expired"
    assert await left(jobs, id) == []
