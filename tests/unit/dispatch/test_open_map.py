"""An open map as its caller reads it: when it ends, and when it is stopped."""

from __future__ import annotations

import asyncio
import gc
from random import Random

import pytest

from jetmap.dispatch.costs import Cost
from jetmap.dispatch.ledger import Ledger
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.outcomes import Batch
from jetmap.dispatch.sources import RawItems
from jetmap.wire import arrays
from jetmap.wire.messages import ErrorRecord, Final, Report
from waiting import PATIENCE, turns

pytestmark = pytest.mark.anyio


class Sent:
    """A map with chunks in flight, and the agents that answer them."""

    def __init__(
        self,
        items: int,
        *,
        chunk: int,
        out: int,
        ordered: bool = False,
        memory: Memory | None = None,
    ) -> None:
        self.pumps = 0
        source = RawItems([b"0"] * items, "json")
        self.withdrawn = False
        self.run = OpenMap(
            "m",
            MapSpec(function="f", format="json", ordered=ordered),
            source,
            Ledger("json", 2),
            Cost(),
            max_buffer=1 << 20,
            memory=memory or Memory(1 << 30),
            on_leave=self._withdraw,
            on_room=self._read,
        )
        self.out = []
        for _ in range(out):
            piece = source.take(chunk, 1 << 20)
            assert piece is not None and piece.start == self.run.taken
            self.run.taken += piece.count
            self.out.append(self.run.ledger.send(piece, "offer", 0.0))

    def answer(self, number: int, *bad: int) -> None:
        flight = next(f for f in self.out if f.number == number)
        start, count = flight.piece.start, flight.piece.count
        errors = [ErrorRecord(i, "raised", "ValueError", "bad") for i in bad]
        values = arrays.nulls(count, "json")
        report = Report("m", number, 1, start, count, values, errors, 0.0, Final(flight.end))
        self.run.deliver(self.run.ledger.accept(report).batches)

    def _read(self) -> None:
        self.pumps += 1

    async def _withdraw(self, run: OpenMap) -> None:
        self.withdrawn = True
        run.end()


def starts(batches: list[Batch]) -> list[int]:
    return [batch.start for batch in batches]


async def read(run: OpenMap) -> list[Batch]:
    return [batch async for batch in run]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_stopped_map_ends_with_what_was_taken(ordered: bool) -> None:
    sent = Sent(100, chunk=2, out=3, ordered=ordered)
    reading = asyncio.create_task(read(sent.run))
    sent.answer(3)
    sent.answer(1)
    sent.run.stop()
    assert not sent.run.has_work
    await turns()
    assert not reading.done()
    sent.answer(2)
    batches = await asyncio.wait_for(reading, PATIENCE)
    assert starts(batches) == [0, 2, 4] if ordered else starts(batches) == [4, 0, 2]
    assert not sent.run.ended  # nobody waits for its other items, but it is still to be left
    await sent.run.aclose()
    assert sent.withdrawn


async def test_a_reader_that_waits_learns_that_nothing_more_will_come() -> None:
    sent = Sent(100, chunk=2, out=1)
    sent.answer(1)
    reading = asyncio.create_task(read(sent.run))
    await turns(2)
    sent.run.stop()
    assert starts(await asyncio.wait_for(reading, PATIENCE)) == [0]


@pytest.mark.parametrize("seed", range(20))
async def test_the_first_error_of_a_loop_is_there_when_the_collecting_stops(seed: int) -> None:
    random = Random(seed)
    sent = Sent(1000, chunk=3, out=12)
    bad = sorted(random.sample(range(36), 3))
    collecting = asyncio.create_task(sent.run.collect(stop_at_error=True))
    for flight in random.sample(sent.out, len(sent.out)):
        if collecting.done():
            break
        piece = flight.piece
        sent.answer(flight.number, *[i for i in bad if 0 <= i - piece.start < piece.count])
        await turns(3)
    batches = await asyncio.wait_for(collecting, PATIENCE)
    assert starts(batches) == sorted(starts(batches))
    found = [record.index for batch in batches for record in batch.errors]
    assert found[0] == bad[0]
    before = [i for b in batches for i in range(b.start, b.start + b.count) if i < bad[0]]
    assert before == list(range(bad[0]))
    assert sent.run.stopped


@pytest.mark.parametrize("bad", [(9,), (5, 9), (3, 9)])
async def test_an_error_among_last_items_that_were_sent_early_stops_nothing_before_it(
    bad: tuple[int, ...],
) -> None:
    sent = Sent(10, chunk=2, out=1)
    run = sent.run
    last = run.source.take_last(2, 1 << 20)  # type: ignore[attr-defined]
    run.taken_last = last.count
    sent.out.append(run.ledger.send(last, "offer", 0.0))
    collecting = asyncio.create_task(run.collect(stop_at_error=True))
    sent.answer(2, 9)
    await turns(3)
    assert not run.stopped and run.has_work
    for number in (3, 4, 5):
        piece = run.source.take(2, 1 << 20)
        assert piece is not None
        run.taken += piece.count
        sent.out.append(run.ledger.send(piece, "offer", 0.0))
        assert run.is_sent == (number == 5)
        sent.answer(number, *[i for i in bad if piece.start <= i < piece.start + piece.count])
        await turns(3)
        if run.stopped:
            break
    assert not collecting.done(), "the first chunk is still out"
    sent.answer(1)
    batches = await asyncio.wait_for(collecting, PATIENCE)
    found = [record.index for batch in batches for record in batch.errors]
    assert found[0] == bad[0]
    before = [i for b in batches for i in range(b.start, b.start + b.count) if i < bad[0]]
    assert before == list(range(bad[0]))


async def test_collecting_everything_stops_at_no_error() -> None:
    sent = Sent(6, chunk=2, out=3)
    collecting = asyncio.create_task(sent.run.collect(stop_at_error=False))
    for number in (2, 3, 1):
        sent.answer(number, 2 * number - 2)
    sent.run.end()
    assert starts(await asyncio.wait_for(collecting, PATIENCE)) == [0, 2, 4]
    assert not sent.run.stopped


async def test_while_memory_is_full_only_maps_that_are_read_get_more() -> None:
    memory = Memory(1 << 30)
    slow = Sent(100, chunk=2, out=4, memory=memory)
    quick = Sent(100, chunk=2, out=1, memory=memory)
    slow.answer(1)
    memory.limit = 4 * memory.used
    slow.answer(2)
    slow.answer(3)
    assert slow.run.has_work and quick.run.has_work
    slow.answer(4)
    assert memory.is_full
    memory.limit *= 5
    memory.used += memory.limit
    assert not memory.is_full and quick.run.has_work, "most of it is no results"
    memory.used -= memory.limit
    memory.limit //= 5
    assert not slow.run.take_turn()
    assert not quick.run.take_turn(), "one chunk at a time"
    quick.answer(1)
    assert not quick.run.take_turn()
    await anext(quick.run)
    assert quick.pumps == 1 and quick.run.has_work
    await anext(slow.run)
    assert slow.pumps == 1 and slow.run.has_work
    await slow.run.aclose()
    assert memory.used == 0


def test_results_of_a_map_that_was_dropped_are_forgotten() -> None:
    memory = Memory(1 << 30)
    sent = Sent(100, chunk=2, out=1, memory=memory)
    sent.answer(1)
    assert memory.used
    sent.run.end()
    del sent
    gc.collect()
    assert memory.used == 0


def test_a_report_of_the_whole_map_teaches_only_what_later_maps_need() -> None:
    for items, chunk in ((1, 1), (4, 2)):
        sent = Sent(items, chunk=chunk, out=1)
        run, (flight,) = sent.run, sent.out
        values = arrays.nulls(chunk, "json")
        run.learn(Report("m", 1, 1, 0, chunk, values, [], 0.1, Final(flight.end)), flight)
        assert run.cost.items_done == chunk
        assert run.pace.is_sure == (items > chunk), "there is more to be cut"
