"""Uploads begin: the same key at several gateways at once, uploads given up, lost answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap.errors import JetmapError, KeyBusy, UnknownJob
from jetmap.jobs.record import Record
from jetmap.jobs.service import Jobs
from jetmap.wire import subjects
from simulated_jobs import JobPool, ended, in_a_pool, submitted
from simulated_pool import FUNCTION
from virtual_time import run


async def with_key(jobs: Jobs, key: str) -> Record | None:
    """Submit a job; None: the key is busy."""
    try:
        return await submitted(jobs, [1, 2, 3], key=key)
    except KeyBusy:
        return None


@pytest.mark.parametrize("gateways", [1, 2])
def test_many_at_once_are_one_job(gateways: int) -> None:
    async def scenario() -> None:
        async with JobPool() as pool:
            await pool.agent(1)
            sites = [await pool.gateway() for _ in range(gateways)]
            for round in range(5):
                at_once = [with_key(sites[n % gateways], f"key {round}") for n in range(8)]
                found = {r.id for r in await asyncio.gather(*at_once) if r is not None}
                assert len(found) == 1, f"round {round}"
            listed, _ = await sites[-1].list(limit=1000)
            assert len(listed) == 5

    run(scenario())


@pytest.mark.parametrize("by", ["sweep", "key"])
@in_a_pool(gateways=2)
async def test_a_commit_before_an_upload_is_given_up_counts(
    pool: JobPool, one: Jobs, other: Jobs, by: str
) -> None:
    await ended(other, (await submitted(other, [1])).id)
    for jobs in (one, other):
        await jobs._monitor.background.close()  # The test does the monitor's pool.work.
    begun = await one.begin(FUNCTION, format="msgpack", key="k")
    await begun.put([b"\x01", b"\x02", b"\x03"])
    await other._monitor.catch_up()
    await one.store.drop_lease(one._dispatcher.id)
    committed: list[Record] = []
    store = other.store
    remove, write = store.remove, store.write

    async def commit(job: str) -> None:
        if job == begun.id and not committed:
            committed.append(await begun.commit())

    async def removing(job: str) -> None:
        await commit(job)
        await remove(job)

    async def writing(record: Record, after: int, **more: Any) -> int:
        await commit(record.id)
        return await write(record, after, **more)

    store.remove, store.write = removing, writing  # type: ignore[method-assign]
    if by == "key":
        earlier = await with_key(other, "k")
        assert earlier is not None and earlier.id == begun.id
    else:
        for _ in range(2):
            await other._monitor._look_for_orphans()
    assert committed
    record = await ended(one, begun.id)
    assert (record.state, record.done) == ("succeeded", 3)


@in_a_pool(gateways=2)
async def test_the_key_of_a_job_that_has_expired_is_free(
    pool: JobPool, one: Jobs, other: Jobs
) -> None:
    first = await submitted(one, [1], key="k", ttl=5.0)
    await ended(one, first.id)
    await asyncio.sleep(6)
    assert (await one.get(first.id)).state == "expired"
    for jobs in (other, one):
        record = await with_key(jobs, "k")
        assert record is not None and record.id != first.id
    await one.delete(first.id)
    for ask in (one.get, one.delete):
        with pytest.raises(UnknownJob):
            await ask(first.id)


@pytest.mark.parametrize("stored", [True, False], ids=["answer lost", "broker away"])
@in_a_pool(gateways=2)
async def test_a_commit_without_an_answer_does_not_block_the_key(
    pool: JobPool, jobs: Jobs, other: Jobs, stored: bool
) -> None:
    begun = await jobs.begin(FUNCTION, format="msgpack", key="k")
    await begun.put([b"\x01", b"\x02", b"\x03"])
    write = jobs.store.write

    async def unheard(record: Record, after: int, **more: Any) -> int:
        if record.id != begun.id or record.state != "queued":
            return await write(record, after, **more)
        if stored:
            await write(record, after, **more)
        raise JetmapError("no answer")

    jobs.store.write = unheard  # type: ignore[method-assign]
    with pytest.raises(JetmapError, match="no answer"):
        await begun.commit()
    await begun.abort()
    record = await with_key(other, "k")
    assert record is not None and (record.id == begun.id) == stored
    assert (await ended(other, record.id)).state == "succeeded"


@in_a_pool()
async def test_an_aborted_upload_frees_its_own_key_only(pool: JobPool, jobs: Jobs) -> None:
    begun = await jobs.begin(FUNCTION, format="msgpack", key="k")
    await begun.abort()
    record = await with_key(jobs, "k")
    assert record is not None
    await jobs._removal.drop(begun._record)
    again = await with_key(jobs, "k")
    assert again is not None and again.id == record.id
    with pytest.raises(UnknownJob):
        await jobs.get(begun.id)


def test_a_key_that_is_not_understood_is_free() -> None:
    async def scenario() -> None:
        async with JobPool() as pool:
            await pool.agent(1)
            store = (jobs := await pool.gateway()).store
            await ended(jobs, (await submitted(jobs, [1])).id)
            await store.append(subjects.job_key("default", "abc"), b"[1]")
            known, seq = await store.read_key("abc")
            assert known is None and seq > 0

    run(scenario())
