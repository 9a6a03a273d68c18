"""Jobs that their callers end."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.errors import NoRoom, UnknownJob
from jetmap.jobs.cancelling import LATE_SECONDS
from jetmap.jobs.record import Record
from jetmap.jobs.service import Jobs
from simulated_jobs import JobPool, ended, in_a_pool, submitted


@in_a_pool(cores=2, seconds=0.5)
async def test_a_cancelled_job_frees_its_cores_and_its_input_and_counts_what_is_done(
    pool: JobPool, jobs: Jobs
) -> None:
    id = (await submitted(jobs, list(range(100)))).id
    await asyncio.sleep(4)
    record = await jobs.cancel(id)
    assert (record.state, record.owner) == ("cancelled", "")
    assert 0 < record.done < 100
    assert id not in await jobs.store.jobs_in("INPUT")
    await asyncio.sleep(LATE_SECONDS + 5)
    runs = pool.work.runs.total()
    late = await jobs.get(id)
    assert record.done <= late.done <= runs
    assert late.done == jobs.outcomes(late).index.done
    assert late.reserved == late.stored
    await asyncio.sleep(10)
    assert pool.work.runs.total() == runs


@in_a_pool()
async def test_a_job_that_is_over_stays_as_it_is(pool: JobPool, jobs: Jobs) -> None:
    record = await ended(jobs, (await submitted(jobs, [1, 2])).id)
    assert await jobs.cancel(record.id) == record
    with pytest.raises(UnknownJob):
        await jobs.cancel("nosuchjob")


@in_a_pool(seconds=5.0)
async def test_without_room_for_the_record_its_input_makes_some(
    pool: JobPool, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = (await submitted(jobs, [1, 2, 3])).id
    await asyncio.sleep(1)
    store, write = jobs.store, jobs.store.write
    removed: list[str] = []
    remove = store.remove_input

    async def removing(record: Record) -> None:
        removed.append(record.id)
        await remove(record)

    async def full(*args: object, **options: object) -> int:
        if not removed:
            raise NoRoom("full", limit=0, used=0, wanted=0)
        return await write(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "remove_input", removing)
    monkeypatch.setattr(store, "write", full)
    assert (await jobs.cancel(id)).state == "cancelled"
    assert removed[0] == id


@in_a_pool(seconds=1.0, max_running_jobs=1)
async def test_a_job_that_waits_is_cancelled_without_an_owner(pool: JobPool, jobs: Jobs) -> None:
    first = await submitted(jobs, [1] * 10)
    second = await submitted(jobs, [2] * 10)
    await asyncio.sleep(1)
    assert (await jobs.get(second.id)).state == "queued"
    assert (await jobs.cancel(second.id)).state == "cancelled"
    assert (await ended(jobs, first.id)).state == "succeeded"
    assert pool.work.runs[2] == 0
