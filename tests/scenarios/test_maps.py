"""Maps as their users see them, on an embedded cluster and inline."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
import pytest

import functions
from jetmap import (
    Cluster,
    ItemInvalid,
    ItemRaised,
    LimitExceeded,
    MapTimeout,
    Unencodable,
    UnknownFunction,
)
from servers import check, outcomes
from waiting import turns, wait_until

pytestmark = pytest.mark.anyio


async def test_map(cluster: Cluster) -> None:
    numbers = range(3000)
    assert await cluster.map(functions.is_prime, numbers) == [
        functions.is_prime(n) for n in numbers
    ]
    assert await cluster.map(functions.is_prime, []) == []
    assert await cluster.map(functions.is_prime, [7]) == [True]
    assert await cluster.map(functions.is_prime, {2, 3}) == [True, True]


async def test_typed_values(cluster: Cluster) -> None:
    parts = [tuple(range(n)) for n in range(50)]
    sums = await cluster.map(functions.add, parts)
    assert sums == [functions.Sum(math.fsum(part), part) for part in parts]
    assert await cluster.map(functions.zeros, [0, 5]) == [b"", bytes(5)]
    (nan,) = await cluster.map(functions.add, [(1,)])
    assert nan.total == 1.0


async def test_functions_are_imported_at_first_use_pydantic_ones_too(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "typed_functions", raising=False)  # Of other files.
    from typed_functions import Point, mirrored, root

    points = [Point(x=n, name=str(n)) for n in range(20)]
    expected = [Point(x=0, y=n, name=str(n)) for n in range(20)]
    assert await cluster.map(mirrored, points) == expected
    assert await cluster.map(root, [4, 9]) == [2.0, 3.0]
    values = await cluster.map(root, [4, -1], return_exceptions=True)
    check(values, [2.0, None], {1: ItemInvalid})
    assert any(status.info.name == "mirrored" for status in cluster.functions)


async def test_keyword_parameters(cluster: Cluster) -> None:
    assert await cluster.map(functions.scale, range(4), kwargs={"by": 3}) == [0, 3, 6, 9]
    twice = await cluster.map(functions.scale, [1, 2], kwargs={"by": 2, "plus": 1})
    assert twice == [3, 5]
    for wrong in (None, {"by": "2"}, {"by": 2, "more": 1}):
        with pytest.raises(TypeError, match="keyword parameters of scale"):
            await cluster.map(functions.scale, [1], kwargs=wrong)


async def test_by_name(cluster: Cluster) -> None:
    assert await cluster.map("is_prime", [7, 8]) == [True, False]
    (built_in,) = await cluster.map("add", [(1, 2)])
    assert built_in == {"total": 3.0, "parts": [1, 2]}
    assert await cluster.map("scale", [1], kwargs={"by": 5}) == [5]
    values = await cluster.map("scale", [1, 2], kwargs={"by": "5"}, return_exceptions=True)
    check(values, [None, None], {0: ItemInvalid, 1: ItemInvalid})
    with pytest.raises(UnknownFunction, match="nobody"):
        await cluster.map("nobody", [1])
    with pytest.raises(TypeError, match="is not a @task"):
        await cluster.map(len, [[]])


async def test_failing_items_keep_their_places(cluster: Cluster) -> None:
    values = await cluster.map(functions.odd_only, range(200), return_exceptions=True)
    check(values, list(range(200)), {n: ItemRaised for n in range(0, 200, 2)})
    error = values[4]
    assert isinstance(error, ItemRaised)
    assert (error.index, error.kind, error.type) == (4, "raised", "ValueError")
    assert error.message == "4 is even"
    assert error.traceback is not None and 'raise ValueError(f"{n} is even")' in error.traceback
    assert "compute.py" not in error.traceback


async def test_the_first_failing_item_in_input_order_is_raised(cluster: Cluster) -> None:
    # The early one takes long, so a later one fails first.
    items = [functions.Work(n) for n in range(400)]
    items[20] = functions.Work(20, 150_000, True)
    items[350] = functions.Work(350, 0, True)
    failed = cluster.stats.maps_ended["failed"]
    with pytest.raises(ItemRaised) as caught:
        await cluster.map(functions.work, items)
    assert caught.value.index == 20
    if cluster.stats.maps_started:  # An inline one has no statistics.
        assert cluster.stats.maps_ended["failed"] == failed + 1


async def test_items_and_values_that_do_not_fit_their_types(cluster: Cluster) -> None:
    items: list[Any] = [7, "7", 7.0, None, 2**70, 11]
    values = await cluster.map("is_prime", items, return_exceptions=True)
    failing: dict[int, Any] = dict.fromkeys((1, 2, 3), ItemInvalid) | {4: Unencodable}
    check(values, [True, *[None] * 4, True], failing)
    values = await cluster.map(functions.lies, range(20), return_exceptions=True)
    check(values, list(range(20)), {5: Unencodable, 15: Unencodable})


async def test_stream(cluster: Cluster) -> None:
    found = await outcomes(cluster.stream(functions.odd_only, range(500)))
    assert len(found) == 500
    for outcome in found:
        assert outcome.item == outcome.index
        assert outcome.ok == (outcome.index % 2 == 1)
        if outcome.ok:
            assert outcome.value == outcome.item
        else:
            with pytest.raises(ItemRaised, match="is even"):
                _ = outcome.value


async def test_an_ordered_stream(cluster: Cluster) -> None:
    items = [functions.Work(n, 3000 if n % 7 == 0 else 0) for n in range(300)]
    stream = cluster.stream(functions.work, items, ordered=True)
    async with stream:
        assert [outcome.value async for outcome in stream] == list(range(300))
    assert stream.done == stream.total == 300


async def test_async_iterables(cluster: Cluster) -> None:
    async def numbers() -> AsyncIterator[int]:
        for n in range(100):
            await turns()
            yield n

    expected = [functions.is_prime(n) for n in range(100)]
    assert await cluster.map(functions.is_prime, numbers()) == expected
    found = await outcomes(cluster.stream(functions.is_prime, numbers()))
    assert [outcome.value for outcome in found] == expected


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3000])
async def test_an_iterable_that_raises(cluster: Cluster, count: int, ordered: bool) -> None:
    """Earlier items have their outcomes, then comes the error, as in a loop."""

    def numbers() -> Iterator[int]:
        yield from range(count)
        raise OSError("the disk is gone")

    async def later() -> AsyncIterator[int]:
        for n in numbers():
            yield n

    for items in (numbers, later):
        found = []
        with pytest.raises(OSError, match="the disk is gone"):
            async for outcome in cluster.stream(functions.empty, items(), ordered=ordered):
                found.append(outcome.value)
        assert (found if ordered else sorted(found)) == list(range(count))
        with pytest.raises(OSError, match="the disk is gone"):
            await cluster.map(functions.empty, items())


async def test_items_that_raise_the_end_of_another_loop_end_no_stream(cluster: Cluster) -> None:
    def numbers() -> Iterator[int]:
        yield 20_000
        raise StopAsyncIteration

    stream = cluster.stream(functions.empty, numbers())
    assert (await anext(stream)).value == 20_000
    with pytest.raises(RuntimeError, match="the items raised StopAsyncIteration"):
        await anext(stream)


async def test_a_stream_takes_its_items_lazily(cluster: Cluster) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield 20_000

    # How much a value takes is learnt, as how long it takes.
    await cluster.map(functions.zeros, [20_000] * 200)
    read = 0
    async with cluster.stream(functions.zeros, endless()) as stream:
        async for outcome in stream:
            read += 1
            assert outcome.value == bytes(20_000)
            if read == 50:
                break
    # A map may leave 16 MiB of its 20 kB results unread: it cannot have run far ahead.
    assert read == 50 <= taken < 5000


async def test_a_slow_reader_holds_back_only_its_own_map(shared: Cluster) -> None:
    async with shared.stream(functions.zeros, [20_000] * 5000) as stream:
        assert (await anext(stream)).ok
        await wait_until(
            lambda: stream.done * 20_000 > shared.settings.limits.max_buffer_bytes, "full"
        )
        assert await shared.map(functions.empty, range(3000)) == list(range(3000))
        assert stream.done < 2000
        read = 1
        async for outcome in stream:
            assert outcome.value == bytes(20_000)
            read += 1
        assert read == 5000


async def test_a_map_over_a_generator(cluster: Cluster) -> None:
    assert await cluster.map(functions.empty, (n for n in range(1000))) == list(range(1000))


async def test_timeout_of_a_map(cluster: Cluster) -> None:
    with pytest.raises(MapTimeout, match=r"within its timeout of 0\.3 s") as caught:
        await cluster.map(functions.spin, [0.05] * 200, timeout=0.3)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(MapTimeout):
        async with cluster.stream(functions.spin, [0.05] * 200, timeout=0.3) as stream:
            async for _ in stream:
                pass
    assert await cluster.map(functions.is_prime, [7], timeout=30) == [True]


async def test_limits(shared: Cluster, mark: str) -> None:
    settings = shared.settings.replace(max_list=10)
    async with Cluster(inline=True, settings=settings) as cluster:
        with pytest.raises(LimitExceeded, match="max_list") as caught:
            await cluster.map(functions.is_prime, range(11))
        assert (caught.value.limit, caught.value.value) == (10, 11)


async def test_many_maps_at_once(shared: Cluster) -> None:
    maps = [shared.map(functions.empty, range(n)) for n in range(60)]
    assert await asyncio.gather(*maps) == [list(range(n)) for n in range(60)]
    assert shared.stats.maps_open == 0


async def test_what_is_there(shared: Cluster) -> None:
    names = {status.info.name: status for status in shared.functions}
    assert names["is_prime"].alive and names["is_prime"].cores == len(os.sched_getaffinity(0))
    assert names["is_prime"].info.doc == "Return whether n is a prime number."
    assert names["is_prime"].info.item["type"] == "integer"
    # (The test before this one may have cost a worker.)
    await wait_until(
        lambda: [a.ready for a in shared.workers] == [a.cores for a in shared.workers], "ready"
    )
    (agent,) = shared.workers
    assert agent.cores == len(agent.workers) and agent.embedded
    assert shared.connected
    by_cpu = {core.cpu: core.pid for core in agent.workers}
    for cpu, pid in by_cpu.items():
        assert pid is not None and psutil.Process(pid).cpu_affinity() == [cpu]
