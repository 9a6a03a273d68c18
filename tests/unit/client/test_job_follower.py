"""Following a job: until it is over, through a broker's absence, and what ends it."""

from __future__ import annotations

import asyncio

import pytest

from fake_jobs import FakeJobs, arrange
from jetmap import BrokerUnreachable, JobEnded, JobUnreadable, UnknownJob
from jetmap.client import job_follower
from jetmap.client.job_follower import JobFollower

pytestmark = pytest.mark.anyio


def follower(jobs: FakeJobs, function: str = "") -> JobFollower:
    return JobFollower("j", lambda: jobs, function)  # type: ignore[arg-type, return-value]


async def test_records_end_with_the_job(jobs: FakeJobs) -> None:
    jobs.add("j", 1)
    states: list[str] = []

    async def follow() -> None:
        async for record in follower(jobs).records():
            states.append(record.state)
            if record.state == "running":
                jobs.put("j", 0, 0)
                jobs.end("j", "succeeded")

    await follow()
    assert (states[0], states[-1]) == ("running", "succeeded")
    assert (await follower(jobs).until_over()).state == "succeeded"


async def test_events_and_order(jobs: FakeJobs) -> None:
    seqs = arrange(jobs)
    assert [event.seq async for event in follower(jobs).events(seqs[1])] == [seqs[3], seqs[4]]
    ordered = follower(jobs)
    starts = [(batch.start, batch.count) async for batch in ordered.ordered(4)]
    assert starts[0][0] == 4 and sum(count for _, count in starts) == 5
    assert ordered.format == "msgpack"


async def test_a_broker_that_comes_back_is_read_on(
    jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange(jobs)
    jobs.store.away = 5
    assert len([event async for event in follower(jobs).events(0)]) == 4
    monkeypatch.setattr(job_follower, "PATIENCE", 0.0)
    jobs.store.away = 10**9
    with pytest.raises(BrokerUnreachable):
        await follower(jobs).until_over()


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ("deleted", UnknownJob, "does not exist any more"),
        ("expired", JobEnded, "has expired"),
        ("unreadable", JobUnreadable, "job"),
    ],
)
async def test_what_cannot_be_read(
    jobs: FakeJobs, state: str, error: type[Exception], message: str
) -> None:
    jobs.add("j", 1, state=state)
    with pytest.raises(error, match=message):
        await anext(follower(jobs).events(0))


async def test_a_job_that_lacks_outcomes_says_so_at_its_end(jobs: FakeJobs) -> None:
    jobs.add("j", 2)
    jobs.put("j", 0, 0)
    jobs.end("j", "cancelled")
    events = follower(jobs).events(0)
    await anext(events)
    with pytest.raises(JobEnded, match="was cancelled: 1 of 2 items have outcomes") as caught:
        await anext(events)
    assert caught.value.state == "cancelled"
    with pytest.raises(JobEnded):
        await follower(jobs).check_complete()


async def test_another_function_is_refused(jobs: FakeJobs) -> None:
    jobs.add("j", 1)
    with pytest.raises(TypeError, match="job j runs double, not halve"):
        await anext(follower(jobs, "halve").events(0))


async def test_a_cancelled_reader_closes_what_it_opened(jobs: FakeJobs) -> None:
    jobs.add("j", 2)
    jobs.put("j", 0, 0)
    one = follower(jobs)
    events = one.events(0)
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert one._reader is None
