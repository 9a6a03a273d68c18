"""Jobs of several gateways: the same key at once, uploads given up, owners with other clocks."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from jetmap import bounds
from jetmap.client.session import _refusal
from jetmap.errors import (
    JetmapError,
    JobsUnavailable,
    JobUnreadable,
    KeyBusy,
    StoreFull,
    UnknownFunction,
    UnknownJob,
)
from jetmap.jobs.record import Record
from jetmap.jobs.service import Jobs
from jetmap.jobs.store import Conflict
from jetmap.nats.server import TEMPORARY
from jetmap.settings import Settings
from jetmap.wire import subjects
from simulated_jobs import JobPool, ended, in_a_pool, submitted
from simulated_pool import FUNCTION, mapped
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


def test_of_two_that_grow_at_once_one_has_the_last_room() -> None:
    room = 1_000_000

    async def scenario() -> None:
        async with JobPool() as pool:
            await pool.agent(1)
            both = [await pool.gateway(job_store_bytes=room) for _ in range(2)]
            await ended(both[0], (await submitted(both[0], [1])).id)
            jobs = []
            for n, gateway in enumerate(both):
                # Owned by nobody who could run it, and not to be taken over.
                record = Record(
                    id=f"j{n}", function=FUNCTION, format="json", state="failed", reserved=room // 4
                )
                jobs.append((record, await gateway.store.write(record, 0)))
            for gateway in both:
                await gateway.list()

            async def grow(gateway: Jobs, record: Record, seq: int) -> int:
                async def write(wanted: Record) -> int:
                    return await gateway.store.write(wanted, seq)

                return await gateway._quota.room(record, room * 6 // 10, write)

            grown = await asyncio.gather(
                *(grow(gateway, *job) for gateway, job in zip(both, jobs, strict=True)),
                return_exceptions=True,
            )
            assert sum(isinstance(found, StoreFull) for found in grown) == 1, grown

    run(scenario())


@in_a_pool()
async def test_what_is_no_job(pool: JobPool, jobs: Jobs) -> None:
    with pytest.raises(UnknownFunction):
        await jobs.begin("nobody_has_this", format="json")
    empty = await ended(jobs, (await submitted(jobs, [])).id)
    assert (empty.state, empty.total, empty.done) == ("succeeded", 0, 0)
    dispatcher = jobs._dispatcher
    refused = Jobs(dispatcher._connection, dispatcher, Settings(), refusal="no store")
    await refused.start()
    with pytest.raises(JobsUnavailable, match="no store"):
        await refused.begin(FUNCTION, format="json")
    # A server whose store goes with it keeps no jobs.
    temporary = cast(Any, SimpleNamespace(server_name=TEMPORARY))
    assert "--store DIRECTORY" in str(_refusal(temporary, None))


@in_a_pool(seconds=0.1)
async def test_the_word_on_its_progress_comes_after_its_last_outcome(
    pool: JobPool, jobs: Jobs
) -> None:
    write = jobs.store.write
    held_up: list[int] = []

    async def late(record: Record, after: int, **more: Any) -> int:
        seq = await write(record, after, **more)
        if record.state == "running" and record.done:
            held_up.append(record.done)
            await asyncio.sleep(60)
        return seq

    jobs.store.write = late  # type: ignore[method-assign]
    record = await ended(jobs, (await submitted(jobs, list(range(100)))).id)
    assert (record.state, record.done, record.epoch) == ("succeeded", 100, 1)
    assert held_up and held_up[0] < 100


@in_a_pool(seconds=0.5)
async def test_its_timeout_is_no_matter_of_other_hosts_clocks(pool: JobPool, jobs: Jobs) -> None:
    """The next owner may believe that it has run for an hour."""
    id = (await submitted(jobs, list(range(30)), timeout=60.0)).id
    while True:
        record, seq = await jobs.store.read(id)
        assert record is not None and not record.is_over
        gone = msgspec.structs.replace(
            record,
            state="running",
            owner="gone",
            epoch=record.epoch + 1,
            started=time.time() - 3600,
            elapsed=3.0,
        )
        try:
            await jobs.store.write(gone, seq)
            break
        except Conflict:
            continue  # Its owner was faster.
    record = await ended(jobs, id)
    assert record.state == "succeeded" and record.epoch > gone.epoch
    assert record.elapsed < 60


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@in_a_pool(cores=2, seconds=0.05)
async def test_jobs_leave_maps_their_share(pool: JobPool, jobs: Jobs, where: str) -> None:
    """A job has a quarter of a map's weight, whichever dispatcher runs it."""
    dispatcher = jobs._dispatcher if where == "here" else await pool.dispatcher()
    id = (await submitted(jobs, [-1] * 1000)).id
    await asyncio.sleep(5)
    before = pool.work.runs[-1]
    assert before > 50
    await mapped(dispatcher, list(range(200)))
    assert pool.work.runs[-1] - before < 130
    await jobs.cancel(id)


# Records of other versions


async def write(jobs: Jobs, id: str, **facts: Any) -> None:
    record = {"id": id, "function": FUNCTION, "format": "json", "reserved": 7, "created": 1e9}
    data = msgspec.json.encode(record | facts)
    await jobs.store.append(subjects.job_state("default", id), data)


@pytest.mark.parametrize("ttl", [1e10, 9.2e9, 7.5e9, 1e300])
@in_a_pool()
async def test_a_job_whose_time_was_let_in_can_end(pool: JobPool, jobs: Jobs, ttl: float) -> None:
    await ended(jobs, (await submitted(jobs, [1], ttl=bounds.TTL.most)).id)
    for end, function in (("run", FUNCTION), ("cancel", "none"), ("delete", "none")):
        await write(jobs, end, function=function, state="queued", total=0, ttl=ttl)
        if end == "run":
            await ended(jobs, end)
        elif end == "cancel":
            assert (await jobs.cancel(end)).state == "cancelled"
            assert (await jobs.get(end)).state == "cancelled", "it has not expired"
        await jobs.delete(end)
        with pytest.raises(UnknownJob):
            await jobs.get(end)


@pytest.mark.parametrize(
    "facts",
    [{"version": 2, "state": "paused", "priority": 5}, {"total": "many"}, {"ttl": None}],
    ids=["later", "damaged", "immortal"],
)
@in_a_pool()
async def test_a_record_that_is_not_understood_is_listed_and_deleted(
    pool: JobPool, one: Jobs, facts: dict[str, Any]
) -> None:
    ours = await ended(one, (await submitted(one, [1])).id)
    await write(one, "odd", **({"state": "running"} | facts))
    other = await pool.gateway()  # Which reads what was there before it.
    for jobs in (one, other):
        found, _ = await jobs.list(states=["unreadable"])
        assert [record.id for record in found] == ["odd"]
        record = await jobs.get("odd")
        assert (record.state, record.function) == ("unreadable", FUNCTION)
        assert record.reason and record.is_over
        assert jobs._catalogue.reserved("") >= 7, "its room counts"
        with pytest.raises(JobUnreadable, match="delete the job"):
            await jobs.cancel("odd")
    await other.delete("odd")
    for jobs in (one, other):
        with pytest.raises(UnknownJob):
            await jobs.get("odd")
        assert [record.id for record in (await jobs.list())[0]] == [ours.id]


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
