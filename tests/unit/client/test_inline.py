"""Maps in this process: batches, bad items, withdrawal and timeouts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest

from jetmap import Cluster, ItemError, MapTimeout, WorkerStartFailed, per_worker, task
from jetmap.client.inline import InlineMap
from jetmap.dispatch.item_feed import ItemFeed
from jetmap.dispatch.objects import Objects
from jetmap.dispatch.sources import RawItems, Source
from jetmap.functions.task import find
from jetmap.worker.compute import Limits
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

release = threading.Event()


@task(name="inline.half")
def half(n: int) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2


@task(name="inline.held")
def held(n: int) -> int:
    release.wait(PATIENCE)
    return n


def opened(function: Any, source: Source, timeout: float | None = None) -> InlineMap:
    found = find(function)
    assert found is not None
    limits = Limits(value=1000, report=1 << 18, report_seconds=3600.0)
    return InlineMap(found, source, format="json", kwargs=b"", timeout=timeout, limits=limits)


def raw(*items: int) -> RawItems:
    return RawItems([b"%d" % item for item in items], "json")


async def test_all_batches_in_order() -> None:
    running = opened(half, raw(*range(0, 100, 2)))
    batches = await running.collect(stop_at_error=False)
    values = [value for batch in batches for value in msgspec.json.decode(batch.values)]
    assert values == list(range(50))
    assert [batch.start for batch in batches] == sorted(batch.start for batch in batches)
    assert (running.total, running.done, running.ended) == (50, 50, True)


async def test_collecting_stops_behind_the_first_error() -> None:
    batches = await opened(half, raw(1, *range(0, 1000, 2))).collect(stop_at_error=True)
    assert [error.index for error in batches[-1].errors] == [0]
    assert sum(batch.count for batch in batches) < 501


async def test_an_item_without_an_encoding_is_that_items_error() -> None:
    def encode(items: list[Any]) -> bytes:
        return msgspec.json.encode(items)

    items = [0, object(), 4]
    source = Objects(items, encode, keep=False, max_item=1000)
    batches = await opened(half, source).collect(stop_at_error=False)
    errors = [error for batch in batches for error in batch.errors]
    assert [(error.index, error.kind) for error in errors] == [(1, "unencodable")]
    assert b"".join(batch.values for batch in batches) == b"[0][null][2]"


async def test_a_feed_wakes_it() -> None:
    feed = ItemFeed("json")
    running = opened(half, feed)
    first = asyncio.ensure_future(anext(running))
    await feed.put([b"8"])
    assert (await first).values == b"[4]"
    last = asyncio.ensure_future(anext(running))
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await last


async def test_stopped_it_takes_no_more() -> None:
    running = opened(half, raw(*range(0, 100, 2)))
    await anext(running)
    running.stop()
    rest = [batch async for batch in running]
    assert running.done == sum(batch.count for batch in rest) + 1 < 50


async def test_its_timeout_says_how_far_it_came() -> None:
    running = opened(held, raw(1, 2), timeout=0.05)
    with pytest.raises(MapTimeout, match=r"its timeout of 0.05 s: 0 of 2 items were done"):
        await anext(running)
    assert running.ended
    release.set()  # The loop ends after its threads.


async def test_the_sources_error_ends_it() -> None:
    feed = ItemFeed("json")
    feed.fail(OSError("unplugged"))
    with pytest.raises(OSError, match="unplugged"):
        await anext(opened(half, feed))


async def test_loaders_are_called_once_and_torn_down_with_the_cluster() -> None:
    log: list[str] = []

    def load() -> Iterator[str]:
        log.append("loaded")
        yield "a model"
        log.append("torn down")

    def load_badly() -> str:
        raise OSError("no weights")

    @task(name="inline.loads")
    def loads(n: int, *, model: Annotated[str, per_worker(load)]) -> str:
        return model

    @task(name="inline.fails")
    def fails(n: int, *, model: Annotated[str, per_worker(load_badly)]) -> str:
        return model

    async with Cluster(inline=True) as cluster:
        assert await cluster.map(loads, [1, 2]) == ["a model"] * 2
        assert await cluster.map(loads, [3]) == ["a model"]
        with pytest.raises(WorkerStartFailed, match="load_badly, which makes 'model'") as raised:
            await cluster.map(fails, [1])
        assert isinstance(raised.value.__cause__, OSError)
        assert log == ["loaded"]
    assert log == ["loaded", "torn down"]


@task(name="inline.batched", batch=4)
def batched(items: list[int]) -> list[int]:
    if 7 in items:
        raise ValueError("7 is bad")
    return [len(items)] * len(items)


async def test_a_batch_function_is_called_with_slices() -> None:
    async with Cluster(inline=True) as cluster:
        assert await cluster.map(batched, range(6)) == [4, 4, 4, 4, 2, 2]
        values = await cluster.map(batched, range(9), return_exceptions=True)
        assert [type(value).__name__ for value in values].count("int") == 8
        error = values[7]
        assert isinstance(error, ItemError) and isinstance(error.__cause__, ValueError)


class Leaving(Exception):
    """Ends the program wherever anybody looks at it."""

    def __str__(self) -> str:
        raise SystemExit

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


@task(name="inline.leaving")
def leaving(n):  # type: ignore[no-untyped-def]
    if n == 1:
        raise Leaving
    return Leaving() if n == 2 else n


async def test_what_ends_programs_while_it_is_encoded_costs_its_item_alone() -> None:
    async with Cluster(inline=True) as cluster:
        found: list[Any] = await cluster.map(leaving, range(4), return_exceptions=True)
    assert (found[0], found[3]) == (0, 3)
    assert [(error.index, error.kind) for error in found[1:3]] == [
        (1, "raised"),
        (2, "unencodable"),
    ]
