"""Runs of a job: its failed items again, and one outcome of an item in each run."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.errors import JobNotRetryable, UnknownJob
from jetmap.jobs import transitions
from jetmap.jobs.outcome_index import OutcomeIndex
from jetmap.jobs.record import VERSION, Record, find_run, read_record
from jetmap.jobs.service import Jobs
from jetmap.wire import subjects
from jetmap.wire.messages import ErrorRecord, Report
from simulated_jobs import JobPool, ended, submitted
from simulated_pool import Work
from virtual_time import run

ITEMS = list(range(20))
BAD = {3, 4, 11}

OVER = Record(
    id="j", function="f", format="json", state="failed", total=9, done=9, failed=2, epoch=3,
    finished=5.0, started=1.0, keeps_input=True, reserved=70, stored=70, is_fixed=True,
)  # fmt: skip


# Decisions


def message(run: int, start: int, failing: set[int], count: int) -> Report:
    errors = [
        ErrorRecord(i, "raised", "E", "") for i in sorted(failing) if start <= i < start + count
    ]
    return Report(subjects.job_map("j", 2 * run, run), 0, 0, start, count, b"", errors, 0.0)


# Of each message: how many runs it comes late, its items, and those of them that fail.
messages = st.lists(
    st.tuples(
        st.integers(0, 1), st.integers(0, 18), st.integers(0, 6), st.sets(st.integers(0, 24))
    ),
    max_size=10,
)


@given(st.lists(messages, min_size=1, max_size=4))
@examples(150)
def test_each_run_holds_one_outcome_of_an_item(runs: list[list[Any]]) -> None:
    """Against dictionaries; late messages of a run do not carry over, and readers agree."""
    stored: list[tuple[int, Report]] = []
    ends: list[int] = []
    expected: list[dict[int, tuple[int, bool]]] = []
    view: dict[int, tuple[int, bool]] = {}
    for number, some in enumerate(runs, 1):
        for late, start, count, failing in some:
            of = max(1, number - late)
            seq = 2 * len(stored) + 2
            stored.append((seq, message(of, start, failing, count)))
            if of == number:
                for item in range(start, start + count):
                    view.setdefault(item, (seq, item in failing))
        expected.append(dict(view))
        ends.append(stored[-1][0] if stored else 0)
        view = {item: outcome for item, outcome in view.items() if not outcome[1]}
    for number, model in enumerate(expected, 1):
        index = OutcomeIndex(number, ends[: number - 1])
        index.until = ends[number - 1]
        told: dict[int, int] = {}
        for seq, each in stored:
            won = index.add(seq, each)
            assert seq > index.until or won == index.add(seq, each) == index.won(seq)
            for a, b in won:
                assert not told.keys() & range(a, b)
                told |= dict.fromkeys(range(a, b), seq)
        assert told == {item: seq for item, (seq, _) in model.items()}
        assert index.done == len(model)
        failed = {item for item, (_, failed) in model.items() if failed}
        assert {i for a, b in index.failures.ranges() for i in range(a, b)} == failed
        for item, (seq, _) in model.items():
            found = index.at(item)
            assert found is not None and found.seq == seq


def test_the_record_keeps_its_runs() -> None:
    again = transitions.retried(OVER, "me", last=40, done=9, failed=2, now=6.0)
    assert (again.run, again.state, again.done, again.failed) == (2, "queued", 7, 0)
    assert (again.started, again.finished, again.rate, again.ends) == (None, None, None, [40])
    half = transitions.replace(
        transitions.as_running(transitions.owned(again, "me"), 10.0), done=8, updated=12.0
    )
    assert half.rate == 0.5  # Of the two items of this run, one took two seconds.
    assert transitions.last_map(again) == "=j=3" and transitions.last_map(half) == "=j=4=2"
    before = find_run(half, 1)
    assert (before.run, before.state, before.done, before.failed) == (1, "failed", 9, 2)
    assert before.is_over and before.seconds_left == 0 and find_run(half, None) is half
    for wrong in (0, 3):
        with pytest.raises(UnknownJob, match=f"'j' has no run {wrong}: it has had 2 runs"):
            find_run(half, wrong)
    assert read_record(msgspec.json.encode(half), "j") == half
    assert half.version == VERSION > OVER.version  # Earlier releases would mix the runs.
    gone = transitions.replace(half, state="expired")
    assert gone.as_of(1) is gone


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({}, None),
        ({"failed": 0, "done": 5}, None),
        ({"state": "succeeded"}, None),
        ({"failed": 0}, "has no failed items"),
        ({"state": "running"}, "is running: wait until it is over, or cancel it"),
        ({"state": "cancelled"}, "was cancelled, and its input removed"),
        ({"keeps_input": False}, "is no longer stored: submit its items again"),
        ({"run": 100}, "has had 100 runs"),
    ],
)
def test_what_can_be_run_again(changes: dict[str, Any], refusal: str | None) -> None:
    found = transitions.retry_refusal(transitions.replace(OVER, **changes))
    assert found is refusal if refusal is None else refusal in (found or "")


# In a pool


async def outcomes(jobs: Jobs, record: Record) -> dict[int, Any]:
    """Read a run's outcomes by events and by page; each item has one, the same in both."""
    reader = jobs.outcomes(record)
    assert await reader.complete()

    async def over() -> int | None:
        return record.total

    found: dict[int, Any] = {}
    async for event in jobs.outcomes(record).events(0, more=over):
        for batch in event.batches:
            values = msgspec.msgpack.decode(batch.values)
            assert not found.keys() & range(batch.start, batch.start + batch.count)
            found |= dict(enumerate(values, batch.start))
    page = await reader.page(0, 100, record.total)
    paged = {
        index: value
        for batch in page.batches
        for index, value in enumerate(msgspec.msgpack.decode(batch.values), batch.start)
    }
    assert found == paged
    return found


@given(st.floats(0, 4), st.booleans())
@examples(12)
def test_a_retry_goes_on_elsewhere_when_its_owner_dies(after: float, starts_again: bool) -> None:
    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.5, kills=BAD.__contains__)
        async with JobPool(work=work) as pool:
            await pool.agent(2)
            owner, other = await pool.gateway(), await pool.gateway()
            id = (await submitted(owner, ITEMS)).id
            first = await ended(other, id)
            assert (first.state, first.failed, first.keeps_input) == ("failed", 3, True)
            seen = await outcomes(other, first)
            errors, following = await other.outcomes(first).failures(0, 2)
            assert [error.index for error in errors] == [3, 4] and following == 11
            ran = dict(work.runs)
            work.kills = {3}.__contains__ if starts_again else lambda item: False
            both = await asyncio.gather(owner.retry(id), other.retry(id), return_exceptions=True)
            assert sum(isinstance(found, JobNotRetryable) for found in both) == 1
            await asyncio.sleep(after)
            await pool.crash(owner)
            second = await ended(other, id)
            assert (second.run, second.done) == (2, 20)
            assert second.state == ("failed" if starts_again else "succeeded")
            assert {item for item in ITEMS if work.runs[item] > ran[item]} == BAD
            assert await outcomes(other, second.as_of(1)) == seen
            now = await outcomes(other, second)
            expected = {item: 2 * item for item in ITEMS}
            assert now == expected | ({3: None} if starts_again else {})
            if not starts_again:
                assert id not in await other.store.jobs_in("INPUT")
                return
            work.kills = lambda item: False
            await other.retry(id)
            third = await ended(other, id)
            assert (third.run, third.state) == (3, "succeeded")
            assert await outcomes(other, third) == expected
            assert await outcomes(other, third.as_of(2)) == now
            assert await outcomes(other, third.as_of(1)) == seen
            with pytest.raises(JobNotRetryable, match="has no failed items"):
                await other.retry(id)

    run(scenario())


def test_a_retry_of_a_job_that_ended_early_runs_the_rest() -> None:
    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.5, kills={0}.__contains__)
        async with JobPool(work=work) as pool:
            await pool.agent(1)
            jobs = await pool.gateway()
            first = await ended(jobs, (await submitted(jobs, ITEMS, max_failed=0)).id)
            assert first.state == "failed" and first.done < 20 and first.reason
            work.kills = lambda item: False
            await jobs.retry(first.id)
            second = await ended(jobs, first.id)
            assert (second.state, second.done, second.reason) == ("succeeded", 20, None)
            assert second.as_of(1).reason == first.reason
            assert len(await outcomes(jobs, second)) == 20
            await jobs.delete(first.id)
            assert first.id not in await jobs.store.jobs_in("INPUT")

    run(scenario())
