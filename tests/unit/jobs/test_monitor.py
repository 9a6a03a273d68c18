"""The watch over a pool's jobs: leases, orphans, expiry and lost notices."""

from __future__ import annotations

import asyncio
import time
from unittest import mock

import pytest

from jetmap.errors import UnknownJob
from jetmap.jobs.monitor import EXPIRY_GRACE, SWEEP_SECONDS
from jetmap.jobs.service import Jobs
from jetmap.wire.timing import JOB_LEASE_SECONDS
from simulated_jobs import JobPool, ended, in_a_pool, submitted
from simulated_pool import FUNCTION


@in_a_pool(gateways=2, seconds=1.0)
async def test_an_owner_keeps_its_lease_while_its_jobs_run(
    pool: JobPool, jobs: Jobs, other: Jobs
) -> None:
    record = await submitted(jobs, [1] * 40)
    for _ in range(6):
        await asyncio.sleep(JOB_LEASE_SECONDS / 2)
        assert await other.store.has_lease(record.owner)
        assert (await other.get(record.id)).owner == record.owner


@in_a_pool(gateways=2)
async def test_a_dead_uploaders_job_is_removed(pool: JobPool, jobs: Jobs, other: Jobs) -> None:
    await ended(other, (await submitted(other, [1])).id)
    upload = await jobs.begin(FUNCTION, format="json")
    await upload.put([b"1"])
    await pool.crash(jobs)
    await asyncio.sleep(2 * JOB_LEASE_SECONDS)
    record, _ = await other.store.read(upload.id)
    assert record is None or record.state == "deleted"
    assert upload.id not in await other.store.jobs_in("INPUT")


@in_a_pool(gateways=2)
async def test_records_whose_notices_were_lost_are_found(
    pool: JobPool, jobs: Jobs, other: Jobs
) -> None:
    await ended(other, (await submitted(other, [1])).id)
    connection = other.store.connection
    connection.lose()  # type: ignore[attr-defined]
    ids = [(await submitted(jobs, [n])).id for n in range(3)]
    for id in ids:
        await ended(jobs, id)
    connection.restore()  # type: ignore[attr-defined]
    records, _ = await other.list()
    assert set(ids) <= {record.id for record in records}


@in_a_pool()
async def test_what_a_removed_job_left_behind_is_swept_up(pool: JobPool, jobs: Jobs) -> None:
    record = await ended(jobs, (await submitted(jobs, [1])).id)
    stored = await jobs.store.fetch("OUTCOMES", "jetmap.>", 0)
    await jobs.delete(record.id)
    with pytest.raises(UnknownJob):
        await jobs.get(record.id)
    # An outcome that was in flight arrives behind the tombstone.
    for message in stored:
        await jobs.store.append(message.subject, message.data)
    assert record.id in await jobs.store.jobs_in("OUTCOMES")
    await asyncio.sleep(2 * SWEEP_SECONDS)
    assert record.id not in await jobs.store.jobs_in("OUTCOMES")


@in_a_pool(gateways=2)
async def test_a_wrong_clock_removes_no_job(pool: JobPool, jobs: Jobs, other: Jobs) -> None:
    record = await ended(jobs, (await submitted(jobs, [1])).id)
    right = time.time
    with mock.patch("time.time", lambda: right() + 10 * record.ttl):
        await asyncio.sleep(5 * SWEEP_SECONDS)
    assert (await jobs.get(record.id)).state == "succeeded"


@in_a_pool()
async def test_a_job_that_the_broker_keeps_for_too_long_is_removed(
    pool: JobPool, jobs: Jobs
) -> None:
    record = await ended(jobs, (await submitted(jobs, [1], ttl=30.0)).id)
    _, seq = await jobs.store.read(record.id)
    await jobs.store.write(record, seq)  # As it is kept where there is no room for its expiry.
    await asyncio.sleep(30 + EXPIRY_GRACE / 2)
    assert (await jobs.get(record.id)).state == "succeeded"
    await asyncio.sleep(EXPIRY_GRACE / 2 + 3 * SWEEP_SECONDS)
    with pytest.raises(UnknownJob):
        await jobs.get(record.id)


@pytest.mark.parametrize("kind", ["JOBS", "INPUT", "OUTCOMES"])
@in_a_pool(gateways=2)
async def test_a_stream_that_somebody_removes_is_made_anew(
    pool: JobPool, jobs: Jobs, other: Jobs, kind: str
) -> None:
    lost = await ended(jobs, (await submitted(jobs, [1])).id)
    await ended(other, lost.id)
    await jobs.store.connection.api(f"STREAM.DELETE.JETMAP_{kind}_{jobs.store.pool}")
    if kind != "INPUT":  # That one is missed at once.
        await asyncio.sleep(2 * SWEEP_SECONDS)
    for each in (other, jobs):
        record = await ended(each, (await submitted(each, [1, 2])).id)
        assert (record.state, record.done) == ("succeeded", 2)
    await asyncio.sleep(2 * SWEEP_SECONDS)
    for each in (other, jobs):
        there = {record.id for record in (await each.list())[0]}
        assert len(there) == 2 + (kind != "JOBS") and (lost.id in there) == (kind != "JOBS")


@in_a_pool(seconds=1.0)
async def test_a_job_ends_although_somebody_has_removed_its_input(
    pool: JobPool, jobs: Jobs
) -> None:
    record = await submitted(jobs, [1] * 5)
    await asyncio.sleep(2)
    await jobs.store.connection.api(f"STREAM.DELETE.JETMAP_INPUT_{jobs.store.pool}")
    record = await ended(jobs, record.id)
    assert (record.state, record.done, record.reason) == ("succeeded", 5, None)
