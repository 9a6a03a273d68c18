"""Submitting: items are encoded and stored piece by piece; an error leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fake_jobs import FakeJobs, JobCluster
from jetmap import (
    Cluster,
    JobsUnavailable,
    StoreFull,
    Unencodable,
    task,
)
from jetmap.client.submit import PIECE_BYTES, PIECE_ITEMS
from waiting import turns, wait_until

pytestmark = pytest.mark.anyio


@dataclass
class Point:
    x: int
    y: int = 0


@task(name="submit.mirrored")
def mirrored(point: Point, *, times: int = 1) -> Point:
    return Point(point.y * times, point.x * times)


@task(name="submit.text")
def text(n: int) -> str:
    return str(n)


async def counted(count: int) -> AsyncIterator[int]:
    for i in range(count):
        yield i


async def test_items_are_stored_in_order_and_in_pieces(cluster: JobCluster, jobs: FakeJobs) -> None:
    for items in (range(100_000), iter(range(100_000)), counted(100_000)):
        job = await cluster.submit(text, items)
        upload = jobs.uploads[-1]
        assert (job.id, upload.state) == (upload.id, "committed")
        assert upload.record.function == "submit.text"
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


@pytest.mark.parametrize(
    ("key", "error"), [(5, TypeError), ("", ValueError), ("x" * 256, ValueError)]
)
async def test_what_is_not_a_key(cluster: JobCluster, key: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="key must be a text"):
        await cluster.submit(text, [1], key=key)


async def test_there_are_no_jobs_inline() -> None:
    async with Cluster(inline=True) as cluster:
        with pytest.raises(JobsUnavailable, match="jetmap up"):
            await cluster.submit(text, [1])
        with pytest.raises(JobsUnavailable):
            await cluster.job("x").status()
