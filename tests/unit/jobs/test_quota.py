"""Reservations of the store."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.errors import StoreFull
from jetmap.jobs.quota import FIRST_RESERVATION
from jetmap.jobs.service import Jobs
from simulated_jobs import JobPool, ended, in_a_pool, submitted
from simulated_pool import FUNCTION
from virtual_time import run

LIMIT = 3 * FIRST_RESERVATION


@in_a_pool(gateways=2, job_store_bytes=LIMIT)
async def test_jobs_reserve_room_first_come_first_served_and_give_it_back(
    pool: JobPool, jobs: Jobs, other: Jobs
) -> None:
    uploads = [await gateway.begin(FUNCTION, format="json") for gateway in (jobs, other)]
    uploads.append(await jobs.begin(FUNCTION, format="json"))
    with pytest.raises(StoreFull, match="the job store is full") as caught:
        await other.begin(FUNCTION, format="json")
    assert (caught.value.limit, caught.value.wanted) == (LIMIT, FIRST_RESERVATION)
    await uploads[0].abort()
    id = (await submitted(other, [1])).id
    assert (await ended(other, id)).reserved < FIRST_RESERVATION
    for upload in uploads[1:]:
        await upload.abort()


def test_of_two_at_once_one_fits() -> None:
    async def scenario() -> None:
        async with JobPool() as pool:
            await pool.agent(1)
            both = [await pool.gateway(job_store_bytes=LIMIT) for _ in range(2)]
            await ended(both[0], (await submitted(both[0], [1])).id)
            size = LIMIT - FIRST_RESERVATION
            results = await asyncio.gather(
                *(jobs.begin(FUNCTION, format="json", reserve=size) for jobs in both),
                return_exceptions=True,
            )
            assert sum(isinstance(result, StoreFull) for result in results) == 1

    run(scenario())


@in_a_pool()
async def test_a_fixed_reservation_is_kept(pool: JobPool, jobs: Jobs) -> None:
    upload = await jobs.begin(FUNCTION, format="json", reserve=1000)
    await upload.put([b"1" * 100_000])
    with pytest.raises(StoreFull, match="more than the 1,000 reserved for it"):
        await upload.commit()
    assert upload.id not in await jobs.store.jobs_in("INPUT")


@in_a_pool()
async def test_a_job_that_outgrows_its_reservation_fails(pool: JobPool, jobs: Jobs) -> None:
    record = await submitted(jobs, list(range(400)), reserve=1500)
    record = await ended(jobs, record.id)
    assert record.state == "failed"
    assert "more than the 1,500 reserved for it" in (record.reason or "")
