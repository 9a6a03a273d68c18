"""Streams of outcomes: opened when read, closed once, withdrawn when dropped."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jetmap import ItemRaised, MapTimeout, task
from jetmap.client.call import Call
from jetmap.client.stream import RunningMap, Stream
from jetmap.dispatch.objects import Objects
from jetmap.dispatch.outcomes import Batch
from jetmap.wire.messages import ErrorRecord
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio


@task(name="stream.same")
def same(n: int) -> int:
    return n


class FakeMap:
    """An open map of these batches; counts how often it is closed."""

    id = "m"
    total: int | None = 5

    def __init__(self, *batches: Batch, error: Exception | None = None) -> None:
        self.ended = False
        self.done = 5
        self.closed = 0
        self._batches = list(batches)
        self._error = error

    async def __anext__(self) -> Batch:
        if self._batches:
            return self._batches.pop(0)
        self.ended = True
        raise self._error or StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


BATCHES = (
    Batch(3, 2, b"\x92\x03\xc0", [ErrorRecord(4, "raised", "ValueError", "no")]),
    Batch(0, 3, b"\x93\x00\x01\x02"),
)


def stream(running: FakeMap, items: Any = (0, 1, 2, 3, 4)) -> Stream[Any, Any]:
    call = Call.of(same, None)

    async def open() -> tuple[RunningMap, Objects]:
        source = call.source(items, keep=True, max_item=1000)
        source.take(5, 1000)
        return running, source  # type: ignore[return-value]

    return Stream(open, call)


async def test_outcomes_have_their_items() -> None:
    found = [outcome async for outcome in stream(FakeMap(*BATCHES))]
    assert [(o.index, o.item, o.ok) for o in found] == [
        (3, 3, True), (4, 4, False), (0, 0, True), (1, 1, True), (2, 2, True),
    ]  # fmt: skip
    with pytest.raises(ItemRaised):
        _ = found[1].value


async def test_a_batch_is_what_is_there() -> None:
    reading = stream(FakeMap(*BATCHES))
    assert (reading.total, reading.done) == (None, 0)
    assert (await anext(reading)).index == 3
    assert (reading.total, reading.done) == (5, 5)
    assert [o.index for o in await reading.next_batch()] == [4]
    assert [o.index for o in await reading.next_batch()] == [0, 1, 2]
    assert await reading.next_batch() == []
    assert not await reading.fill()


async def test_closing_drops_what_was_not_read() -> None:
    running = FakeMap(*BATCHES)
    async with stream(running) as reading:
        await anext(reading)
    assert running.closed == 1
    with pytest.raises(StopAsyncIteration):
        await anext(reading)


async def test_closing_before_the_first_outcome_opens_nothing() -> None:
    running = FakeMap(*BATCHES)
    reading = stream(running)
    await reading.aclose()
    assert (await reading.next_batch(), running.closed) == ([], 0)


async def test_an_error_comes_behind_the_outcomes() -> None:
    reading = stream(FakeMap(BATCHES[1], error=OSError("unplugged")))
    assert [(await anext(reading)).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="unplugged"):
        await anext(reading)


async def test_dropped_it_is_withdrawn() -> None:
    running = FakeMap(*BATCHES)
    reading = stream(running)
    await anext(reading)
    del reading
    gc.collect()
    await wait_until(lambda: running.closed == 1, "the map is closed")


async def test_dropped_at_its_end_there_is_nothing_to_withdraw() -> None:
    running = FakeMap(BATCHES[1])
    reading = stream(running)
    assert len(await reading.next_batch()) == 3
    assert await reading.next_batch() == []
    reading._drop()
    await reading._loop.run_in_executor(None, gc.collect)
    assert running.closed == 0


async def test_several_tasks_share_a_stream() -> None:
    opened = 0
    running = FakeMap(*BATCHES)
    call = Call.of(same, None)

    async def open() -> tuple[RunningMap, Objects]:
        nonlocal opened
        opened += 1
        await asyncio.sleep(0)
        source = call.source(range(5), keep=True, max_item=1000)
        source.take(5, 1000)
        return running, source  # type: ignore[return-value]

    reading = Stream(open, call)

    async def read() -> list[int]:
        return [outcome.index async for outcome in reading]

    async def read_batches() -> list[int]:
        found = []
        while batch := await reading.next_batch():
            found += [outcome.index for outcome in batch]
        return found

    shares = await asyncio.gather(read(), read(), read_batches())
    assert opened == 1
    assert sorted(index for share in shares for index in share) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("how", ["dropped", "failed"])
async def test_items_are_read_no_further_when_the_map_is_over(how: str) -> None:
    closed = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            for number in range(10**9):
                yield number
        finally:
            closed.set()

    running = FakeMap(error=MapTimeout("late"))
    call = Call.of(same, None)

    async def open() -> tuple[RunningMap, Objects]:
        return running, call.source(items(), keep=True, max_item=1000)  # type: ignore[return-value]

    reading = Stream(open, call)
    if how == "dropped":
        reading._running, reading._source = await open()
        await asyncio.sleep(0.01)
        del reading
        gc.collect()
    else:
        with pytest.raises(MapTimeout):
            await anext(reading)
    await asyncio.wait_for(closed.wait(), PATIENCE)
