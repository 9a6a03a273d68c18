"""Jobs as Python callers hold them: without a broker, then with one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import functions
from fake_jobs import FakeJobs, JobCluster
from jetmap import (
    BrokerUnreachable,
    Cluster,
    ItemRaised,
    JobEnded,
    JobsUnavailable,
    StoreFull,
    Unencodable,
    UnknownFunction,
    UnknownJob,
    task,
)
from jetmap.client import job_follower
from jetmap.client.submit import PIECE_BYTES, PIECE_ITEMS
from jetmap.jobs import outcomes
from servers import site
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


@pytest.fixture
async def cluster() -> AsyncIterator[JobCluster]:
    async with JobCluster() as cluster:
        assert cluster.fake is not None
        # Nothing that an upload's end raises may hide the error that led there.
        cluster.fake.leaderless = True
        yield cluster


@pytest.fixture
def jobs(cluster: JobCluster) -> FakeJobs:
    assert cluster.fake is not None
    return cluster.fake


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_follower, "PAUSE", 0.001)


# Submitting


async def counted(count: int) -> AsyncIterator[int]:
    for i in range(count):
        yield i


async def test_items_are_stored_in_order_and_in_pieces(cluster: JobCluster, jobs: FakeJobs) -> None:
    for items in (range(100_000), iter(range(100_000)), counted(100_000)):
        job = await cluster.submit(text, items)
        upload = jobs.uploads[-1]
        assert (job.id, upload.state) == (upload.id, "committed")
        assert upload.record.function == "jobs.text"
        assert upload.items == list(range(100_000))
        assert len(upload.pieces) > 3
        assert max(map(len, upload.pieces)) <= PIECE_ITEMS
        assert max(sum(map(len, piece)) for piece in upload.pieces) <= PIECE_BYTES


async def test_an_empty_list_is_a_job(cluster: JobCluster, jobs: FakeJobs) -> None:
    for items in ([], iter([]), counted(0)):
        await cluster.submit(text, items)
        assert (jobs.uploads[-1].state, jobs.uploads[-1].pieces) == ("committed", [])


async def test_options_travel(cluster: JobCluster, jobs: FakeJobs) -> None:
    await cluster.submit(mirrored, [Point(1)], kwargs={"times": 2}, ttl=5, timeout=7, key="k")
    upload = jobs.uploads[0]
    assert upload.items == [{"x": 1, "y": 0}]
    options = {name: jobs.begun[0][name] for name in ("ttl", "timeout", "key")}
    assert options == {"ttl": 5, "timeout": 7, "key": "k"}
    assert upload.record.format == "msgpack"
    assert upload.record.kwargs == b"\x81\xa5times\x02"
    with pytest.raises(TypeError, match="keyword parameters"):
        await cluster.submit(mirrored, [Point(1)], kwargs={"nope": 2})
    assert len(jobs.uploads) == 1


@pytest.mark.parametrize("is_async", [False, True])
async def test_items_are_taken_no_faster_than_they_are_stored(
    cluster: JobCluster, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    jobs = cluster.fake
    assert jobs is not None
    begin = jobs.begin

    async def full(*args: Any, **options: Any) -> Any:
        upload = await begin(*args, **options)
        upload.has_room.clear()
        return upload

    monkeypatch.setattr(jobs, "begin", full)

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "x" * 100

    async def endless_too() -> AsyncIterator[str]:
        for item in endless():
            yield item

    submitting = asyncio.create_task(cluster.submit("f", endless_too() if is_async else endless()))
    await wait_until(lambda: taken, "some are taken")
    await turns(100)
    assert taken <= 20_000
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert jobs.uploads[0].state == "aborted"


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("bad", [object(), "x" * 2000])
async def test_an_item_that_cannot_travel_ends_the_upload(
    cluster: JobCluster, jobs: FakeJobs, bad: object, is_async: bool
) -> None:
    items: list[Any] = list(range(5000))
    items[4321] = bad

    async def slowly() -> AsyncIterator[Any]:
        for item in items:
            yield item

    with pytest.raises(Unencodable) as caught:
        await cluster.submit("f", slowly() if is_async else items)
    assert caught.value.index == 4321
    assert jobs.uploads[0].state == "aborted"
    with pytest.raises(Unencodable) as caught:
        await asyncio.to_thread(cluster.sync.submit, "f", items)
    assert caught.value.index == 4321
    assert jobs.uploads[1].state == "aborted"


async def test_what_items_or_the_store_raise_ends_the_upload(
    cluster: JobCluster, jobs: FakeJobs
) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        await cluster.submit("f", failing())

    jobs.room = 0
    with pytest.raises(StoreFull):
        await cluster.submit("f", [1])
    assert [upload.state for upload in jobs.uploads] == ["aborted"] * 2


async def test_there_are_no_jobs_inline() -> None:
    async with Cluster(inline=True) as cluster:
        with pytest.raises(JobsUnavailable, match="jetmap up"):
            await cluster.submit(text, [1])
        with pytest.raises(JobsUnavailable):
            await cluster.job("x").status()


# Status


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


async def test_waiting_ends_but_not_the_job(cluster: JobCluster, jobs: FakeJobs) -> None:
    jobs.add("j", 1)
    with pytest.raises(TimeoutError):
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


# Results


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


# Streams


def arrange(jobs: FakeJobs) -> list[int]:
    """Nine items by five messages, which overlap; returns their numbers."""
    jobs.add("j", 9)
    seqs = [
        jobs.put("j", 3, 3, 4, 5, failed=[4]),
        jobs.put("j", 0, 0, 1, 2, -3, -4),
        jobs.put("j", 0, -1, -1),
        jobs.put("j", 2, -2, -3, -4, -5, 6),
        jobs.put("j", 7, 7, 8),
    ]
    jobs.end("j", "failed")
    return seqs


async def read(stream: Any, count: int = 10**9) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    while len(found) < count:
        try:
            outcome = await anext(stream)
        except StopAsyncIteration:
            break
        assert outcome.item is None
        found.append((outcome.index, outcome.value if outcome.ok else str(outcome.error)))
    return found


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_stream_resumes_anywhere_without_gap_or_repeat(
    cluster: JobCluster, jobs: FakeJobs, ordered: bool
) -> None:
    arrange(jobs)
    job = cluster.job("j")
    whole = await read(job.stream(ordered=ordered))
    order = range(9) if ordered else (3, 4, 5, 0, 1, 2, 6, 7, 8)
    assert whole == [(i, "item 4: ValueError: no 4" if i == 4 else i) for i in order]
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


# Without async


async def test_the_same_without_async(cluster: JobCluster, jobs: FakeJobs) -> None:
    threads = set()

    def numbers() -> Iterator[int]:
        for i in range(9):
            threads.add(asyncio._get_running_loop())
            yield i

    def work() -> None:
        job = cluster.sync.submit(text, numbers(), key="k")
        assert jobs.uploads[0].items == list(range(9))
        cluster.sync._wait(arranged())
        other = cluster.sync.job("j")
        assert other.status().total == 9
        assert other.wait().state == "failed"
        with pytest.raises(ItemRaised):
            other.results()
        assert len(other.results(return_exceptions=True)) == 9
        with other.stream() as stream:
            first = [next(stream).index for _ in range(4)]
        rest = [outcome.index for outcome in other.stream(after=stream.position)]
        assert first + rest == [3, 4, 5, 0, 1, 2, 6, 7, 8]
        assert [o.index for o in other.stream(ordered=True)] == list(range(9))
        assert job.cancel().state == "cancelled"
        job.delete()
        with pytest.raises(UnknownJob):
            job.status()
        assert repr(job) == "SyncJob('job1')"

    async def arranged() -> None:
        arrange(jobs)

    await asyncio.to_thread(work)
    assert threads == {None}


# With a broker


async def test_jobs_for_real(tmp_path: Path) -> None:
    async with site(tmp_path, store=tmp_path / "store") as there:
        cluster = await there.cluster()
        await there.agent(cluster)
        job = await cluster.submit(functions.scale, range(3000), kwargs={"by": 2})
        assert await job == [2 * i for i in range(3000)]
        other = await there.cluster()
        again = other.job(job.id)
        assert (await again.status()).state == "succeeded"
        stream = again.stream()
        first = await read(stream, 1500)
        rest = await read(job.stream(after=stream.position))
        assert sorted(first + rest) == [(i, 2 * i) for i in range(3000)]
        assert await read(again.stream("@2998", ordered=True)) == [(2998, 5996), (2999, 5998)]

        def count() -> list[int]:
            return other.sync.submit(functions.scale, range(10), kwargs={"by": 2}).results()

        assert await asyncio.to_thread(count) == list(range(0, 20, 2))
        one = await other.submit(functions.empty, range(5), key="k")
        assert (await cluster.submit(functions.empty, range(5), key="k")).id == one.id
        with pytest.raises(UnknownFunction):
            await cluster.submit("nobody_has_it", [1])
        await job.delete()
        with pytest.raises(UnknownJob):
            await again.status()


async def test_jobs_are_refused_where_the_store_goes_with_the_server(tmp_path: Path) -> None:
    from jetmap.nats.server import TEMPORARY

    async with site(tmp_path, name=TEMPORARY) as there:
        cluster = await there.cluster()
        await there.agent(cluster)
        with pytest.raises(JobsUnavailable, match="--store DIRECTORY"):
            await cluster.submit(functions.empty, range(5))
        assert len(await cluster.map(functions.empty, range(5))) == 5
