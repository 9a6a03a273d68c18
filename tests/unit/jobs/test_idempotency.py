"""Keys by which a repeated request finds its job."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.errors import KeyBusy, KeyReused
from jetmap.jobs.idempotency import digest
from jetmap.jobs.service import Jobs
from jetmap.wire.timing import JOB_LEASE_SECONDS
from simulated_jobs import JobPool, ended, in_a_pool, submitted
from simulated_pool import FUNCTION


def test_a_key_belongs_to_its_caller() -> None:
    assert digest("a", "k") == digest("a", "k")
    assert len({digest("a", "k"), digest("b", "k"), digest("", "ak"), digest("a", "K")}) == 4


@in_a_pool(gateways=2)
async def test_the_same_request_finds_the_same_job_on_any_gateway(
    pool: JobPool, jobs: Jobs, other: Jobs
) -> None:
    first = await submitted(jobs, [1, 2], key="k", caller="c")
    again = await submitted(other, [1, 2], key="k", caller="c")
    assert again.id == first.id
    assert (await submitted(other, [1, 2], key="k", caller="d")).id != first.id
    await ended(jobs, first.id)
    assert (await submitted(other, [1, 2], key="k", caller="c")).id == first.id
    with pytest.raises(KeyReused, match=f"belongs to job {first.id}"):
        await submitted(other, [1, 3], key="k", caller="c")
    with pytest.raises(KeyReused):
        await submitted(other, [1, 2], key="k", caller="c", timeout=5.0)


@in_a_pool(gateways=2)
async def test_a_key_is_busy_while_its_job_is_uploaded_and_free_after_a_removal(
    pool: JobPool, jobs: Jobs, other: Jobs
) -> None:
    upload = await jobs.begin(FUNCTION, format="msgpack", key="k")
    for gateway in (jobs, other):
        with pytest.raises(KeyBusy, match="still uploading"):
            await gateway.begin(FUNCTION, format="msgpack", key="k")
    await upload.abort()
    first = await submitted(other, [1], key="k")
    await other.delete(first.id)
    assert (await submitted(jobs, [2], key="k")).id != first.id


@in_a_pool(gateways=2)
async def test_a_dead_uploaders_key_is_free_once_its_lease_has_expired(
    pool: JobPool, jobs: Jobs, other: Jobs
) -> None:
    upload = await jobs.begin(FUNCTION, format="msgpack", key="k")
    await pool.crash(jobs)
    with pytest.raises(KeyBusy):
        await other.begin(FUNCTION, format="msgpack", key="k")
    await asyncio.sleep(JOB_LEASE_SECONDS + 1)
    assert (await submitted(other, [1], key="k")).id != upload.id
