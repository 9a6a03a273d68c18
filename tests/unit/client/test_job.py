"""Jobs as Python callers hold them: status, results, and streams that resume."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from fake_jobs import FakeJobs, JobCluster, arrange, read
from jetmap import (
    BrokerUnreachable,
    ItemRaised,
    JobEnded,
    JobNotRetryable,
    JobOver,
    Unencodable,
    UnknownJob,
    task,
)
from jetmap.client import job_follower
from jetmap.jobs import outcomes
from waiting import turns, wait_until

pytestmark = pytest.mark.anyio


@dataclass
class Point:
    x: int
    y: int = 0


@task(name="jobs.mirrored")
def mirrored(point: Point, *, times: int = 1) -> Point:
    return Point(point.y * times, point.x * times)


@task(name="jobs.text")
def text(n: int) -> str:
    return str(n)


async def test_status(cluster: JobCluster, jobs: FakeJobs) -> None:
    jobs.add("j", 4, state="queued")
    job = cluster.job("j")
    status = await job.status()
    assert (status.id, status.function, status.state) == ("j", "double", "queued")
    assert (status.total, status.done, status.failed, status.is_over) == (4, 0, 0, False)
    assert status.created == datetime.fromtimestamp(1e9, UTC)
    assert (status.started, status.finished, status.rate) == (None, None, None)
    jobs.put("j", 0, 1, 2, 3, 4, failed=[2])
    jobs.end("j", "failed", "one item failed")
    status = await job.wait()
    assert (status.done, status.failed, status.reason) == (4, 1, "one item failed")
    assert (status.is_over, status.seconds_left) == (True, 0)
    assert repr(job) == "Job('j')"
    with pytest.raises(TypeError, match="the id of a job, a text, not 5"):
        cluster.job(5)  # type: ignore[call-overload]


async def test_waiting_ends_but_not_the_job(cluster: JobCluster, jobs: FakeJobs) -> None:
    jobs.add("j", 1)
    with pytest.raises(TimeoutError, match=r"^job j is not over after 0\.01 s; it goes on"):
        await cluster.job("j").wait(0.01)
    assert jobs.records["j"].state == "running"


async def test_cancel_and_delete(cluster: JobCluster, jobs: FakeJobs) -> None:
    jobs.add("j", 1)
    job = cluster.job("j")
    assert (await job.cancel()).state == "cancelled"
    assert (await job.cancel()).state == "cancelled"
    await job.delete()
    for ask in (job.status, job.results, job.wait, job.delete, job.cancel):
        with pytest.raises(UnknownJob):
            await ask()
    with pytest.raises(UnknownJob):
        await anext(job.stream())


async def test_results_wait_for_the_end_and_keep_the_order(
    cluster: JobCluster, jobs: FakeJobs
) -> None:
    job = await cluster.submit(text, range(6))
    job_reader = asyncio.ensure_future(job.results())
    jobs.put(job.id, 4, "4", "5")
    jobs.put(job.id, 3, "x", "x", "x")  # of an earlier owner: only 3 is new
    await turns()
    jobs.put(job.id, 0, "0", "1", "2")
    await turns(50)
    await wait_until(lambda: jobs.waiters, "it has read what there is")
    assert not job_reader.done()
    jobs.end(job.id, "succeeded")
    assert await job_reader == ["0", "1", "2", "x", "4", "5"]
    assert await job == await job.results(return_exceptions=True) == await job_reader


async def test_results_raise_the_first_error_once_it_is_over(
    cluster: JobCluster, jobs: FakeJobs
) -> None:
    jobs.add("j", 6)
    jobs.put("j", 0, *range(4), failed=[3, 2])
    job = cluster.job("j")
    job_reader = asyncio.ensure_future(job.results())
    await turns(50)
    await wait_until(lambda: jobs.waiters, "it has read what there is")
    assert not job_reader.done()
    jobs.put("j", 4, 4, 5)
    jobs.end("j", "failed")
    with pytest.raises(ItemRaised, match="no 2"):
        await job_reader
    values = await job.results(return_exceptions=True)
    assert [v for v in values if isinstance(v, int)] == [0, 1, 4, 5]
    assert [v.index for v in values if isinstance(v, ItemRaised)] == [2, 3]


@pytest.mark.parametrize("fails", [[], [1]])
async def test_a_job_without_all_outcomes_says_so(
    cluster: JobCluster, jobs: FakeJobs, fails: list[int]
) -> None:
    jobs.add("j", 10)
    jobs.put("j", 0, 0, 1, 2, failed=fails)
    jobs.end("j", "cancelled")
    job = cluster.job("j")
    with pytest.raises(JobEnded, match="job j was cancelled: 3 of 10 items") as caught:
        await job.results()
    assert caught.value.state == "cancelled"
    for ordered in (False, True):
        stream = job.stream(ordered=ordered)
        assert [(await anext(stream)).index for _ in range(3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(JobEnded):
                await anext(stream)
    jobs.change("j", state="failed", reason="its timeout of 3 s is over")
    with pytest.raises(JobEnded, match=r"failed \(its timeout of 3 s is over\): 3 of"):
        await job
    jobs.change("j", state="expired")
    with pytest.raises(JobEnded, match="has expired"):
        await job


async def test_values_decode_to_the_functions_type(cluster: JobCluster, jobs: FakeJobs) -> None:
    for format in ("msgpack", "json"):
        jobs.add("j", 2, function="jobs.mirrored", format=format)
        jobs.put("j", 0, {"x": 1, "y": 2}, {"x": "3"})
        jobs.end("j", "succeeded")
        assert await cluster.job("j") == [{"x": 1, "y": 2}, {"x": "3"}]
        values = await cluster.job("j", mirrored).results(return_exceptions=True)
        assert values[0] == Point(1, 2)
        assert isinstance(values[1], Unencodable)
        with pytest.raises(TypeError, match=r"job j runs jobs\.mirrored, not jobs\.text"):
            await cluster.job("j", text)


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_stream_resumes_anywhere_without_gap_or_repeat(
    cluster: JobCluster, jobs: FakeJobs, ordered: bool
) -> None:
    arrange(jobs)
    job = cluster.job("j")
    whole = await read(job.stream(ordered=ordered))
    order = range(9) if ordered else (3, 4, 5, 0, 1, 2, 6, 7, 8)
    failed = "item 4: ValueError: no 4\n\ntrace of 4"
    assert whole == [(i, failed if i == 4 else i) for i in order]
    for first in range(10):
        for second in range(10 - first):
            stream = job.stream(ordered=ordered)
            found = await read(stream, first)
            stream = job.stream(after=stream.position, ordered=ordered)
            found += await read(stream, second)
            assert job.stream(after=stream.position, ordered=ordered).position == stream.position
            found += await read(job.stream(after=stream.position, ordered=ordered))
            assert found == whole


async def test_a_position_is_the_number_of_the_last_whole_event(
    cluster: JobCluster, jobs: FakeJobs
) -> None:
    seqs = arrange(jobs)
    stream = cluster.job("j").stream()
    assert stream.position == "0"
    await read(stream, 3)
    assert stream.position == str(seqs[0])
    await read(stream, 2)
    assert stream.position == f"{seqs[0]}:2"
    assert await read(cluster.job("j").stream(after=seqs[1])) == [(6, 6), (7, 7), (8, 8)]
    for after, ordered in (("x", False), ("@3", False), ("3", True), (-1, False), ("1:2:3", False)):
        with pytest.raises(ValueError, match="is not a position of"):
            cluster.job("j").stream(after, ordered=ordered)


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_stream_survives_the_broker_and_impatient_readers(
    cluster: JobCluster, jobs: FakeJobs, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "RETRY_FOR", 0)  # So that it is the stream that comes again.
    jobs.store.at_once = 1
    jobs.add("j", 30)
    stream = cluster.job("j").stream(ordered=ordered)
    found: list[tuple[int, Any]] = []
    for start in range(0, 30, 3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.005)
        jobs.put("j", start, start, start + 1, start + 2)
        jobs.store.away = start % 4
        found += await read(stream, 3)
    jobs.store.away = 2
    jobs.end("j", "succeeded")
    assert await read(stream) == []
    assert found == [(i, i) for i in range(30)]
    assert jobs.store.away == 0


async def test_a_broker_that_stays_away_is_told(
    cluster: JobCluster, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_follower, "PATIENCE", 0.01)
    jobs.add("j", 1)
    jobs.store.away = 10**9
    for ask in (cluster.job("j").results, cluster.job("j").wait):
        with pytest.raises(BrokerUnreachable):
            await ask()


async def test_leaving_a_stream_leaves_the_job(cluster: JobCluster, jobs: FakeJobs) -> None:
    jobs.add("j", 2)
    jobs.put("j", 0, 0)
    async with cluster.job("j").stream() as stream:
        async for outcome in stream:
            assert outcome.value == 0
            break
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert jobs.records["j"].state == "running"


async def test_a_reader_of_a_run_sees_what_it_saw(cluster: JobCluster, jobs: FakeJobs) -> None:
    arrange(jobs)
    job = cluster.job("j")
    with pytest.raises(JobNotRetryable, match="is running"):
        jobs.change("j", state="running")
        await job.retry()
    jobs.change("j", state="failed")
    stream, ordered = job.stream(), job.stream(ordered=True)
    before = await read(job.stream())
    begun = await read(stream, 4), await read(ordered, 4)
    assert [error.index for error in await job.failures()] == [4]
    assert await job.failures(0) == [] and len(await job.failures(1)) == 1
    assert (await job.retry()).run == 2
    assert await job.failures() == [] and (await job.status()).done == 8
    waiting = asyncio.ensure_future(job.results())
    jobs.put("j", 4, 44)
    await wait_until(lambda: jobs.waiters, "it waits for the end of the run")
    assert not waiting.done()
    jobs.end("j")
    assert (await waiting)[4] == 44 == (await job.results(run=2))[4]
    assert [str(error) for error in await job.failures(run=1)] == [dict(before)[4]]
    with pytest.raises(ItemRaised):
        await job.results(run=1)
    with pytest.raises(UnknownJob, match="has no run 3"):
        await job.failures(run=3)
    with pytest.raises(TypeError, match="run must be a whole number from 1"):
        await job.failures(run="3")  # type: ignore[arg-type]
    # Those that began in the first run go on there, here and in another process.
    assert begun[0] + await read(job.stream(stream.position)) == before
    assert begun[0] + await read(stream) == before
    assert begun[1] + await read(job.stream(ordered.position, ordered=True)) == sorted(before)
    later = job.stream()
    some = await read(later, 8)
    assert later.position.startswith("2/")
    assert dict(some + await read(job.stream(later.position))) == dict(before) | {4: 44}
    with pytest.raises(ValueError, match="is a position in run 2, not in run 1"):
        job.stream(later.position, run=1)


async def test_a_place_that_a_job_does_not_have_is_refused(
    cluster: JobCluster, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "LAG_SECONDS", 0.0)  # No replica lags here.
    seqs = arrange(jobs)
    other = jobs.add("other", 1)
    at = jobs.put(other.id, 0, 7)
    job = cluster.job("j")
    for after in (at, seqs[-1] + 1, 10**17, 10**30, f"{seqs[0]}:99"):
        for forget in (jobs.forget, bool):  # This process has read nothing, or everything.
            forget()
            with pytest.raises(ValueError, match=r"job j has no position"):
                await read(job.stream(after))
            assert len(await read(job.stream(0))) == 9
    with pytest.raises(ValueError, match="job j has no position 10"):
        await read(job.stream("@10", ordered=True))
    assert await read(job.stream("@9", ordered=True)) == []


async def test_outcomes_that_somebody_has_removed_are_no_short_list(
    cluster: JobCluster, jobs: FakeJobs
) -> None:
    jobs.add("j", 4)
    jobs.put("j", 0, 1, 2)
    jobs.put("j", 2, 3, 4)
    jobs.end("j")
    job = cluster.job("j")
    assert await job == [1, 2, 3, 4]
    del jobs.store.streams["jetmap.outcome.default.j"][1]
    for forget in (bool, jobs.forget):  # This process has read everything, or nothing.
        forget()
        for reading in (job.results(), read(job.stream()), read(job.stream(ordered=True))):
            with pytest.raises(JobEnded, match="in the store") as caught:
                await reading
            assert caught.value.state == "removed"


async def test_limits_and_labels_are_changed(cluster: JobCluster, jobs: FakeJobs) -> None:
    jobs.add("j", 10, labels={"team": "a"})
    job = cluster.job("j")
    status = await job.update(max_failed="5%", labels={"x": "1"})
    assert (status.max_failed, status.max_parallel) == ("5%", None)
    assert status.labels == {"team": "a", "x": "1"}
    assert (await job.update(max_parallel=2, labels={"team": None})).labels == {"x": "1"}
    with pytest.raises(ValueError, match="max_parallel must be"):
        await job.update(max_parallel=0, max_failed=None)
    assert (await job.status()).max_failed == "5%"
    jobs.end("j")
    with pytest.raises(JobOver, match="is over"):
        await job.update(max_failed=None)
