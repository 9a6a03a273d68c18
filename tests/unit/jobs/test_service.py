"""Jobs of several gateways: owners with other clocks, and records of other versions."""

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
    JobsUnavailable,
    JobUnreadable,
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


@pytest.mark.parametrize("where", [pytest.param("here", marks=pytest.mark.slow), "elsewhere"])
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
