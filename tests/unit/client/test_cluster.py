"""A cluster's calls, on a pool in memory: maps, streams, functions by name, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from jetmap import (
    BadInput,
    Cluster,
    ItemError,
    ItemInvalid,
    JetmapError,
    Retryable,
    TooLarge,
    UnknownFunction,
    WorkerLost,
    task,
)
from jetmap.client.call import Call
from jetmap.dispatch.outcomes import Batch
from jetmap.settings import Settings
from jetmap.wire.messages import Format
from simulated_pool import SimulatedPool
from waiting import wait_until

pytestmark = pytest.mark.anyio

URL = "nats://memory:4222"


@task
def double(n: int) -> int:
    raise AssertionError("the workers of this pool only pretend to run it")


@pytest.fixture
async def pooled(pool: SimulatedPool) -> AsyncIterator[Cluster]:
    """A cluster with one agent of two cores."""
    await pool.agent(cores=2)
    async with Cluster(URL) as cluster:
        yield cluster


async def test_a_map_in_input_order(pooled: Cluster, pool: SimulatedPool) -> None:
    assert await pooled.map(double, range(1000)) == [2 * n for n in range(1000)]
    assert await pooled.map("double", iter([1, 2])) == [2, 4]
    assert await pooled.map(double, []) == []
    assert pool.work.runs[999] == 1


async def test_others_have_their_turn_while_values_are_decoded(
    pooled: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, seen, values = 0, list[int](), Call.values

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def look(call: Call, batch: Batch, format: Format | None = None) -> list[Any]:
        seen.append(turns)
        return values(call, batch, format)

    monkeypatch.setattr(Call, "values", look)
    monkeypatch.setattr("jetmap.client.cluster.DECODE_BYTES", 0)
    beside = asyncio.create_task(other())
    assert await pooled.map(double, range(1000)) == [2 * n for n in range(1000)]
    beside.cancel()
    assert len(seen) > 1 and len(set(seen)) == len(seen)


async def test_a_stream_has_items_and_counts(pooled: Cluster) -> None:
    async def numbers() -> AsyncIterator[int]:
        for n in range(100):
            yield n

    async with pooled.stream(double, numbers(), ordered=True) as stream:
        found = [(o.index, o.item, o.value) async for o in stream]
        assert (stream.total, stream.done) == (100, 100)
    assert found == [(n, n, 2 * n) for n in range(100)]


async def test_the_first_failed_item_is_raised_or_in_its_place(
    pooled: Cluster, pool: SimulatedPool
) -> None:
    pool.work.kills = lambda item: item == 3
    with pytest.raises(WorkerLost) as caught:
        await pooled.map(double, range(5))
    assert caught.value.index == 3
    values = await pooled.map(double, range(5), return_exceptions=True)
    assert [v for v in values if not isinstance(v, ItemError)] == [0, 2, 4, 8]
    assert isinstance(values[3], WorkerLost)


async def test_what_is_refused_before_anything_runs(pooled: Cluster, pool: SimulatedPool) -> None:
    with pytest.raises(TypeError, match="keyword parameters of double"):
        await pooled.map(double, [1], kwargs={"by": 2})
    with pytest.raises(ValueError, match="timeout must be"):
        await pooled.map(double, [1], timeout=0)
    with pytest.raises(TooLarge):
        async with Cluster(URL, settings=Settings(max_list=2)) as other:
            await other.map(double, [1, 2, 3])
    assert not pool.work.runs


async def test_families_say_what_to_do(pool: SimulatedPool) -> None:
    async with Cluster(URL, settings=Settings(max_open_maps=1)) as cluster:
        with pytest.raises(BadInput):
            await cluster.map("nobody_has_it", [1])
        await pool.agent()
        pool.work.seconds = lambda item: 60.0
        first = asyncio.ensure_future(cluster.map("double", [1]))
        await wait_until(lambda: pool.work.runs[1], "the item runs")
        with pytest.raises(Retryable):
            await cluster.map("double", [1])
        assert cluster.stats.maps_refused == {"unknown-function": 1, "too-many-maps": 1}
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_leaving_a_stream_withdraws_its_map(pooled: Cluster) -> None:
    def endless() -> Iterator[int]:
        n = 0
        while True:
            yield (n := n + 1)

    async with pooled.stream(double, endless()) as stream:
        await anext(stream)
        assert pooled.open_maps == 1
    assert pooled.open_maps == 0


async def test_what_the_pool_offers(pooled: Cluster) -> None:
    await wait_until(lambda: pooled.functions, "the function is announced")
    assert [status.info.name for status in pooled.functions] == ["double"]
    assert [worker.host for worker in pooled.workers] == ["host"]
    assert pooled.sync.functions == pooled.functions and pooled.sync is pooled.sync


async def test_items_that_do_not_fit_are_that_items_errors_inline() -> None:
    async with Cluster(inline=True) as cluster:
        with pytest.raises(ItemInvalid):
            await cluster.map("double", ["x"])
        with pytest.raises(UnknownFunction):
            await cluster.map("nobody_has_it", [1])
        with pytest.raises(JetmapError):
            await cluster.submit(double, [1])
