"""A job around its map: run to its end by whoever owns it, whatever happens to its owners."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.tolerance import Tolerance
from jetmap.errors import JobEnded, JobOver
from jetmap.jobs.record import Record
from jetmap.jobs.service import Jobs
from jetmap.jobs.store import RETRY_FOR
from jetmap.nats.memory import MemoryBroker, MemoryConnection
from simulated_jobs import JobPool, ended, in_a_pool, submitted
from simulated_pool import FUNCTION, Work
from virtual_time import run
from waiting import wait_until

READ_OUTCOMES = "$JS.API.DIRECT.GET.JETMAP_OUTCOMES"

ITEMS = list(range(60))
DOUBLED: list[Any] = [2 * item for item in ITEMS]


async def values(jobs: Jobs, record: Record) -> list[Any]:
    """Read a job's outcomes; None where an item failed. Every item has exactly one."""
    outcomes = jobs.outcomes(record)
    assert await outcomes.complete()
    found: dict[int, Any] = {}
    page = await outcomes.page(0, record.total or 0, record.total)
    for batch in page.batches:
        for index, value in enumerate(msgspec.msgpack.decode(batch.values), batch.start):
            assert index not in found
            found[index] = value
    assert sorted(found) == list(range(record.total or 0))
    return [found[index] for index in range(record.total or 0)]


def test_a_job_stores_each_outcome_once_and_removes_its_input() -> None:
    work = Work()

    async def scenario() -> None:
        async with JobPool(work=work) as pool:
            await pool.agent(2)
            jobs = await pool.gateway()
            record = await ended(jobs, (await submitted(jobs, ITEMS)).id)
            assert (record.state, record.done, record.failed) == ("succeeded", 60, 0)
            assert record.owner == "" and record.reserved == record.stored > 0
            assert await values(jobs, record) == DOUBLED
            assert record.id not in await jobs.store.jobs_in("INPUT")

    run(scenario())
    assert set(work.runs.values()) == {1}


@given(st.floats(0, 6), st.booleans())
@examples(16)
@in_a_pool(cores=2, gateways=2, seconds=0.2)
async def test_a_job_goes_on_elsewhere_when_its_owner_dies(
    pool: JobPool, owner: Jobs, other: Jobs, after: float, released: bool
) -> None:
    id = (await submitted(owner, ITEMS)).id
    await asyncio.sleep(after)
    if released:
        pool._gateways.remove(owner)
        await owner.close()
    else:
        await pool.crash(owner)
    record = await ended(other, id)
    assert (record.state, record.done) == ("succeeded", 60)
    assert await values(other, record) == DOUBLED


@pytest.mark.parametrize(("released", "level"), [(True, "INFO"), (False, "WARNING")])
@in_a_pool(cores=2, gateways=2, seconds=0.2)
async def test_only_an_owner_that_died_is_worth_a_warning(
    pool: JobPool,
    owner: Jobs,
    other: Jobs,
    released: bool,
    level: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "jetmap.jobs.running_job")
    id = (await submitted(owner, ITEMS)).id
    await asyncio.sleep(1)
    if released:
        pool._gateways.remove(owner)
        await owner.close()
    else:
        await pool.crash(owner)
    await ended(other, id)
    assert [e.levelname for e in caplog.records if "taken over" in e.message] == [level]


def test_a_job_without_workers_waits_and_says_so() -> None:
    async def scenario() -> None:
        async with JobPool() as pool:
            agent = await pool.agent(1)
            jobs = await pool.gateway()
            await submitted(jobs, [1])
            await agent.stop()
            pool._agents.remove(agent)
            id = (await submitted(jobs, ITEMS)).id
            await asyncio.sleep(5)
            record = await jobs.get(id)
            assert (record.public_state, record.waiting_for) == ("waiting", "workers")
            assert "no worker that has 'double' is alive" in (record.reason or "")
            await pool.agent(2)
            record = await ended(jobs, id)
            assert (record.state, record.waiting_for, record.reason) == ("succeeded", None, None)
            assert record.started is not None

    run(scenario())


@in_a_pool(seconds=0.5)
async def test_a_job_fails_at_its_timeout_with_what_it_has(pool: JobPool, jobs: Jobs) -> None:
    record = await ended(jobs, (await submitted(jobs, ITEMS, timeout=4.0)).id)
    assert record.state == "failed" and 0 < record.done < 60
    assert record.reason is not None
    assert record.reason.startswith("the job did not end within its timeout of 4 s")


def test_a_job_whose_items_kill_their_workers_fails_with_their_number() -> None:
    async def scenario() -> None:
        work = Work(kills={3, 17}.__contains__)
        async with JobPool(work=work) as pool:
            await pool.agent(2)
            jobs = await pool.gateway()
            record = await ended(jobs, (await submitted(jobs, ITEMS)).id)
            assert (record.state, record.reason) == ("failed", "2 of 60 items failed")
            found = await values(jobs, record)
            assert [index for index, value in enumerate(found) if value is None] == [3, 17]

    run(scenario())


def test_a_restarted_broker_ends_no_job() -> None:
    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.2)
        async with JobPool(MemoryBroker(), work) as pool:
            await pool.agent(2)
            jobs = await pool.gateway()
            id = (await submitted(jobs, ITEMS)).id
            await asyncio.sleep(2)
            pool.broker.restart()
            record = await ended(jobs, id)
            assert (record.state, record.done) == ("succeeded", 60)
            assert await values(jobs, record) == DOUBLED

    run(scenario())


def test_jobs_of_a_paused_function_wait_and_say_so_and_let_others_run() -> None:
    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.2)
        async with JobPool(work=work) as pool:
            await pool.agent(2)
            owner, other = await pool.gateway(), await pool.gateway()
            running = (await submitted(owner, ITEMS)).id
            await asyncio.sleep(2)
            steering = other._dispatcher.steering
            await steering.change(FUNCTION, paused=True)
            late = (await submitted(owner, ITEMS, timeout=20.0)).id
            await asyncio.sleep(3)
            begun = work.runs.total()
            for id in (running, late):
                record = await other.get(id)
                waits = (record.public_state, record.waiting_for, record.reason)
                assert waits == (
                    "waiting",
                    "a pause of its function",
                    "function 'double' is paused: `jetmap function double --resume` lets it go on",
                )
            assert all(job.is_held for job in owner._runner._running.values())
            await asyncio.sleep(30)
            record = await ended(other, late)
            assert record.state == "failed" and record.reason is not None
            assert "its timeout of 20 s" in record.reason and "is paused" in record.reason
            assert work.runs.total() == begun
            await steering.change(FUNCTION, paused=False)
            assert await values(other, await ended(other, running)) == DOUBLED

    run(scenario())


def test_a_paused_job_waits_across_owners_and_keeps_its_limit() -> None:
    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.2)
        async with JobPool(work=work) as pool:
            await pool.agent(4)
            owner, other = await pool.gateway(), await pool.gateway()
            id = (await submitted(owner, ITEMS, max_parallel=1)).id
            await asyncio.sleep(2)
            (run,) = owner._dispatcher.maps
            assert len(run.ledger.flights) == 1
            await other.steer(id, max_parallel=2)
            await asyncio.sleep(2)
            assert len(run.ledger.flights) == 2
            await other.steer(id, paused=True)
            await asyncio.sleep(3)
            record = await other.get(id)
            assert (record.public_state, record.waiting_for) == ("waiting", "a pause")
            begun = work.runs.total()
            await pool.crash(owner)
            await asyncio.sleep(30)
            record = await other.get(id)
            assert (record.epoch, record.waiting_for) == (2, "a pause")
            assert work.runs.total() == begun and not list(other._dispatcher.maps)
            await other.steer(id, paused=False)
            await asyncio.sleep(3)
            (run,) = other._dispatcher.maps
            assert len(run.ledger.flights) == 2
            record = await ended(other, id)
            assert (record.state, record.done, record.max_parallel) == ("succeeded", 60, 2)
            assert await values(other, record) == DOUBLED
            assert (await other.steer(id, paused=True)).paused is False  # It is over.

    run(scenario())


def test_limits_and_labels_of_a_job_change_while_it_runs() -> None:
    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.2, fails=lambda item: item % 2 == 1)
        async with JobPool(work=work) as pool:
            await pool.agent(4)
            owner, other = await pool.gateway(), await pool.gateway()
            id = (
                await submitted(owner, list(range(300)), max_failed="50%", labels={"team": "a"})
            ).id
            await asyncio.sleep(2)
            await other.update(id, {"max_parallel": 1, "labels": {"team": None, "urgent": "1"}})
            await asyncio.sleep(2)
            (run,) = owner._dispatcher.maps
            assert (len(run.ledger.flights), run.spec.labels) == (1, {"urgent": "1"})
            failed = run.ledger.failed
            assert failed > 3
            await other.update(id, {"max_failed": failed + 3, "max_parallel": None})
            record = await ended(other, id)
            assert record.state == "failed" and record.done < record.total
            assert record.failed >= failed + 4
            assert f"max_failed is {failed + 3}:" in (record.reason or "")
            assert "item 1: ValueError: no 1\n" in (record.reason or "")  # From before the change.
            assert record.labels == {"urgent": "1"}
            with pytest.raises(JobOver, match="is over"):
                await other.update(id, {"labels": None})
            assert (await other.get(id)).labels == {"urgent": "1"}

    run(scenario())


@examples(25)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.4), st.sampled_from([None, 0, 2, 3, "50%", "10%"])), max_size=8
    )
)
def test_the_end_of_a_job_agrees_with_its_limit(changes: list[tuple[float, Any]]) -> None:
    """However late it changes. A change that came too late is refused."""

    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.2, fails=lambda item: item % 2 == 1)
        async with JobPool(MemoryBroker(network=lambda subject, data: (0.01,)), work=work) as pool:
            await pool.agent(4)
            owner, other = await pool.gateway(), await pool.gateway()
            id = (await submitted(owner, list(range(6)), max_failed=6)).id
            await asyncio.sleep(0.2)
            wanted: str | None = "6"
            for seconds, limit in changes:
                await asyncio.sleep(seconds)
                try:
                    wanted = (await other.update(id, {"max_failed": limit})).max_failed
                except JobOver:
                    break
            record = await ended(other, id)
            tolerance = Tolerance.of(record.max_failed)
            most = 0 if tolerance is None else tolerance.limit(6)
            if record.state == "succeeded":
                assert record.failed == 3 <= most and record.max_failed == wanted
            else:
                assert record.state == "failed" and record.failed > most
                assert tolerance is None or f"max_failed is {tolerance.text}" in record.reason

    run(scenario())


def test_a_job_that_tolerates_more_is_not_ended_by_what_it_tolerated_first() -> None:
    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.2, fails=lambda item: item % 2 == 1)
        async with JobPool(work=work) as pool:
            await pool.agent(4)
            owner, other = await pool.gateway(), await pool.gateway()
            id = (await submitted(owner, ITEMS, max_failed=20)).id
            await asyncio.sleep(1)
            await other.update(id, {"max_failed": "50%"})
            await asyncio.sleep(0.5)
            await pool.crash(owner)  # The next owner reads it from the record.
            record = await ended(other, id)
            assert (record.state, record.failed, record.max_failed) == ("succeeded", 30, "50%")

    run(scenario())


def test_what_is_stored_is_not_computed_again_because_the_store_answers_slowly() -> None:
    """The owner hears of no outcome before the agent that stored them is killed."""
    seconds = 0.0

    def network(subject: str, data: bytes) -> tuple[float]:
        return (seconds if subject.startswith(READ_OUTCOMES) else 0.0,)

    async def scenario(slow: float) -> None:
        nonlocal seconds
        work = Work(seconds=lambda item: 2.0)
        async with JobPool(MemoryBroker(network=network), work) as pool:
            agent = await pool.agent(2, host="first")
            jobs = await pool.gateway()
            record = await submitted(jobs, [1, 2])
            await wait_until(lambda: len(work.runs) == 2, "both items are computed")
            owner = jobs._dispatcher._connection
            assert isinstance(owner, MemoryConnection)
            owner.lose()
            await asyncio.sleep(3.0)
            await pool.kill(agent)
            seconds = slow
            owner.restore()
            await pool.agent(2, host="second")
            assert (await ended(jobs, record.id)).state == "succeeded"
        assert work.runs == {1: 1, 2: 1}

    for slow in (1.0, 2.0, 3.0):  # It is asked twice; the broker delivers again after ten.
        seconds = 0.0
        run(scenario(slow))


def test_a_job_goes_on_when_its_store_answers_again() -> None:
    """Nobody knows before what is to be computed again."""
    is_away = False

    def network(subject: str, data: bytes) -> tuple[float, ...]:
        return () if is_away and subject.startswith(READ_OUTCOMES) else (0.0,)

    async def scenario() -> None:
        nonlocal is_away
        async with JobPool(MemoryBroker(network=network), Work(seconds=lambda item: 5.0)) as pool:
            agent = await pool.agent(2, host="first")
            jobs = await pool.gateway()
            record = await submitted(jobs, [1, 2])
            await wait_until(lambda: len(pool.work.runs) == 2, "both items are computed")
            is_away = True
            await pool.kill(agent)
            await pool.agent(2, host="second")
            await asyncio.sleep(3 * RETRY_FOR)
            is_away = False
            assert (await ended(jobs, record.id)).state == "succeeded"
        assert pool.work.runs == {1: 2, 2: 2}

    run(scenario())


@pytest.mark.parametrize(
    "remove", ["STREAM.PURGE", pytest.param("STREAM.DELETE", marks=pytest.mark.slow)]
)
@in_a_pool(cores=2, gateways=2, seconds=0.2)
async def test_outcomes_removed_while_the_job_runs_are_computed_again(
    pool: JobPool, owner: Jobs, other: Jobs, remove: str
) -> None:
    id = (await submitted(owner, ITEMS)).id
    reader = other.reader(await other.get(id))
    await asyncio.sleep(3)
    assert (await reader.outcomes.counts())[0] > 0
    reader.close()
    await owner.store.connection.api(f"{remove}.JETMAP_OUTCOMES_default")
    record = await ended(other, id)
    assert (record.state, record.done, record.failed) == ("succeeded", 60, 0)
    assert await values(owner, record) == DOUBLED
    while True:  # The second reader has an index of what was removed.
        try:
            assert await values(other, record) == DOUBLED
        except JobEnded as error:
            assert error.state == "removed"
        else:
            break


@in_a_pool(cores=2, gateways=1, seconds=0.2)
async def test_a_job_whose_outcomes_are_removed_again_and_again_fails(
    pool: JobPool, owner: Jobs
) -> None:
    id = (await submitted(owner, ITEMS)).id
    while not (record := await owner.get(id)).is_over:
        await asyncio.sleep(0.5)
        await owner.store.connection.api("STREAM.PURGE.JETMAP_OUTCOMES_default")
    assert (record.state, record.keeps_input) == ("failed", True)
    assert record.done < 60 and "something removes them" in (record.reason or "")
