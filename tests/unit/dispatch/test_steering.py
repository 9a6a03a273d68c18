"""Functions and pools that are paused or limited, with real dispatchers in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.sources import RawItems
from jetmap.dispatch.steering import READ_SECONDS, SEATS_KEPT, TURN_SECONDS
from jetmap.errors import MapTimeout
from jetmap.nats.memory import MemoryBroker
from jetmap.wire import subjects
from jetmap.wire.controls import FunctionControl, PoolControl, Steer
from jetmap.wire.messages import encode
from simulated_pool import FUNCTION, SimulatedPool, Work, mapped
from virtual_time import run

ITEMS = list(range(40))
DOUBLED = [2 * item for item in ITEMS]


class Busy(Work):
    """Work of equal items that knows how many of them ran at once."""

    def __init__(self, seconds: float = 0.3) -> None:
        super().__init__(seconds=self._begin)
        self.each = seconds
        self.spans: list[tuple[float, int]] = []

    def _begin(self, item: int) -> float:
        now = asyncio.get_running_loop().time()
        self.spans.append((now, item))
        return self.each

    def most(self, since: float = 0.0) -> int:
        """Items that were computed at once, at most."""
        starts = [at for at, _ in self.spans if at >= since]
        return max(
            (sum(at <= other < at + self.each - 1e-6 for at in starts) for other in starts),
            default=0,
        )


async def opened(dispatcher: Dispatcher, items: list[int], **fields: Any) -> OpenMap:
    spec = MapSpec(function=FUNCTION, format="msgpack", **fields)
    return await dispatcher.open(spec, RawItems([encode(item) for item in items], "msgpack"))


def test_a_paused_function_sends_nothing_until_it_is_resumed() -> None:
    async def scenario() -> None:
        work = Busy()
        async with SimulatedPool(work=work) as pool:
            await pool.agent(2)
            here, there = [await pool.dispatcher() for _ in range(2)]
            await mapped(there, [1])
            running = asyncio.ensure_future(mapped(there, ITEMS))
            await asyncio.sleep(1)
            await here.steering.change(FUNCTION, paused=True)
            await here.steering.change(FUNCTION, paused=True)  # Two people click at once.
            await asyncio.sleep(2)  # Chunks that are out end.
            begun = len(work.spans)
            late = await opened(here, [7])
            await asyncio.sleep(60)
            assert len(work.spans) == begun
            assert (late.done, running.done()) == (0, False)
            held = here.steering.hold(FUNCTION)
            assert held is not None and held.waits == "a pause of its function"
            await there.steering.change(FUNCTION, paused=False)
            assert [batch.count async for batch in late] == [1]
            assert await running == DOUBLED
            assert here.steering.hold(FUNCTION) is None

    run(scenario())


def test_chunks_that_wait_at_the_broker_come_back_from_a_pause() -> None:
    async def scenario() -> None:
        work = Busy(10.0)
        async with SimulatedPool(work=work) as pool:
            await pool.agent(1)
            dispatcher = await pool.dispatcher()
            await mapped(dispatcher, [1])
            running = asyncio.ensure_future(mapped(dispatcher, [2, 3, 4, 5]))
            await asyncio.sleep(12)
            (run,) = dispatcher.maps
            assert len(run.ledger.flights) > 1  # One runs, the next waits for the core.
            await dispatcher.steering.change(FUNCTION, paused=True)
            await asyncio.sleep(60)
            assert (len(run.ledger.flights), work.runs.total()) == (0, 1 + run.done)
            assert run.done < 4
            await dispatcher.steering.change(FUNCTION, paused=False)
            assert await running == [4, 6, 8, 10]
            assert set(work.runs.values()) == {1}

    run(scenario())


def test_a_paused_pool_pauses_every_function_and_survives_every_process() -> None:
    async def scenario() -> None:
        broker, work = MemoryBroker(), Busy()
        async with SimulatedPool(broker, work) as pool:
            await pool.agent(1)
            first = await pool.dispatcher()
            assert await mapped(first, [3]) == [6]
            await first.steering.change(None, paused=True)
            await first.steering.change(FUNCTION, max_parallel=3)
        async with SimulatedPool(broker, work) as pool:
            await pool.agent(1)
            broker.restart()
            second = await pool.dispatcher()
            assert second.steering.control == PoolControl(
                True, {FUNCTION: FunctionControl(False, 3)}
            )
            with pytest.raises(
                MapTimeout,
                match=r"0 of 2 items were done; the pool is paused: `jetmap pool --resume` lets it",
            ):
                await (await opened(second, [1, 2], timeout=5.0)).collect(stop_at_error=True)
            await second.steering.change(None, paused=False)
            assert await mapped(second, ITEMS) == DOUBLED

    run(scenario())


def test_a_lost_notice_is_made_up_for() -> None:
    async def scenario() -> None:
        def network(subject: str, data: bytes) -> tuple[float, ...]:
            return () if subject.startswith("jetmap.steer.") else (0.0,)

        async with SimulatedPool(MemoryBroker(network=network)) as pool:
            here, there = [await pool.dispatcher() for _ in range(2)]
            await here.steering.change(FUNCTION, paused=True)
            assert not there.steering.is_active
            await asyncio.sleep(15)
            assert there.steering.control.of(FUNCTION).paused

    run(scenario())


def test_a_limit_holds_within_one_dispatcher_and_changes_while_it_runs() -> None:
    async def scenario() -> None:
        work = Busy()
        async with SimulatedPool(work=work) as pool:
            await pool.agent(6)
            dispatcher = await pool.dispatcher()
            await dispatcher.steering.change(FUNCTION, max_parallel=2)
            maps = [asyncio.ensure_future(mapped(dispatcher, ITEMS)) for _ in range(3)]
            await asyncio.sleep(5)
            assert work.most() == 2
            await dispatcher.steering.change(FUNCTION, max_parallel=1)
            await asyncio.sleep(1)  # Chunks that are out end.
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(4)
            assert work.most(since=now) == 1
            await dispatcher.steering.change(FUNCTION, max_parallel=None)
            assert await asyncio.gather(*maps) == [DOUBLED] * 3
            assert work.most() == 6

    run(scenario())


def test_the_limit_of_a_functions_code_holds_until_people_want_another() -> None:
    async def scenario() -> None:
        work = Busy()
        async with SimulatedPool(work=work) as pool:
            await pool.agent(4)
            here, there = [await pool.dispatcher() for _ in range(2)]
            maps = [await opened(d, 3 * ITEMS, together=1) for d in (here, there)]
            await asyncio.sleep(6)
            assert work.most() == 1 and all(run.gate is not None for run in maps)
            await here.steering.change(FUNCTION, max_parallel=3)
            await asyncio.sleep(6)
            assert work.most() == 3
            await there.steering.change(FUNCTION, max_parallel=None)
            await asyncio.sleep(1)
            now = asyncio.get_running_loop().time()
            await asyncio.gather(*(run.collect(stop_at_error=True) for run in maps))
            assert work.most(since=now) == 1
            assert here.steering.hold(FUNCTION) is None

    run(scenario())


def test_two_dispatchers_take_turns_within_one_limit() -> None:
    async def scenario() -> None:
        work = Busy(0.2)
        async with SimulatedPool(work=work) as pool:
            await pool.agent(4)
            here, there = [await pool.dispatcher() for _ in range(2)]
            await here.steering.change(FUNCTION, max_parallel=1)
            running = [asyncio.ensure_future(mapped(d, 3 * ITEMS)) for d in (here, there)]
            await asyncio.sleep(8 * TURN_SECONDS)
            done = [sum(run.done for run in d.maps) for d in (here, there)]
            assert min(done) >= 20, done  # Of the 80 that one core computes.
            assert await asyncio.gather(*running) == [3 * DOUBLED] * 2
            assert work.most() == 1

    run(scenario())


def test_the_cores_of_a_dispatcher_that_was_killed_are_free_after_a_while() -> None:
    async def scenario() -> None:
        work = Busy(0.2)
        async with SimulatedPool(work=work) as pool:
            await pool.agent(2)
            doomed, other = [await pool.dispatcher() for _ in range(2)]
            await other.steering.change(FUNCTION, max_parallel=1)
            lost = await opened(doomed, list(range(1000)))
            await asyncio.sleep(1)
            connection = doomed._connection
            await connection.close()
            killed = asyncio.get_running_loop().time()
            assert await mapped(other, [1, 2]) == [2, 4]
            took = asyncio.get_running_loop().time() - killed
            assert took < SEATS_KEPT + 3
            assert (lost.done > 0, work.most()) == (True, 1)

    run(scenario())


def test_a_dispatcher_that_others_may_take_for_dead_sends_nothing_limited() -> None:
    async def scenario() -> None:
        work = Busy(0.2)
        async with SimulatedPool(work=work) as pool:
            await pool.agent(2)
            frozen, other = [await pool.dispatcher() for _ in range(2)]
            await frozen.steering.change(FUNCTION, max_parallel=1)
            running = await opened(frozen, list(range(100)))
            await asyncio.sleep(1)
            gate = running.gate
            assert gate is not None and gate.share == 1
            gate.out = 0
            assert gate.is_open
            frozen.steering._spoke_at -= SEATS_KEPT  # As after a long freeze.
            assert not gate.is_open
            await asyncio.sleep(3)  # It has looked whether its cores are still its own.
            assert await mapped(other, [1, 2]) == [2, 4]
            await running.collect(stop_at_error=True)
            assert (running.done, work.most()) == (100, 1)

    run(scenario())


def test_a_dispatcher_that_ends_leaves_its_cores_to_others_at_once() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            await pool.agent(1)
            here, there = [await pool.dispatcher() for _ in range(2)]
            await here.steering.change(FUNCTION, max_parallel=1)
            assert await mapped(here, [1]) == [2]
            await here.close()
            began = asyncio.get_running_loop().time()
            assert await mapped(there, [1]) == [2]
            assert asyncio.get_running_loop().time() - began < 1

    run(scenario())


def test_a_paused_map_can_be_cancelled() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            await pool.agent(1)
            dispatcher = await pool.dispatcher()
            await mapped(dispatcher, [1])
            await dispatcher.steering.change(FUNCTION, paused=True)
            paused = await opened(dispatcher, [1])
            await dispatcher.cancel(paused)
            assert dispatcher.open_maps == 0
            await dispatcher.steering.change(FUNCTION, paused=False)
            assert await mapped(dispatcher, [2]) == [4]

    run(scenario())


def test_controls_that_cannot_be_read_hold_nothing_up() -> None:
    async def scenario() -> None:
        from jetmap.wire import pool_streams

        async with SimulatedPool() as pool:
            await pool.agent(1)
            dispatcher = await pool.dispatcher()
            await pool_streams.write_key(dispatcher._connection, "default", "control", b"{", 0)
            other = await pool.dispatcher()
            assert await mapped(other, [2]) == [4]
            await other.steering.change(FUNCTION, paused=True)
            assert other.steering.control.of(FUNCTION).paused

    run(scenario())


def test_dispatchers_that_have_ended_are_forgotten_where_nothing_is_limited() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            dispatcher = await pool.dispatcher()
            other = pool.broker.connect("others")
            for number in range(50):
                notice = encode(Steer(f"d{number}", "seats.f"))
                await other.publish(subjects.steer("default"), notice)
            await asyncio.sleep(1)
            assert len(dispatcher.steering._heard) == 50
            await asyncio.sleep(SEATS_KEPT + READ_SECONDS)
            assert not dispatcher.steering._heard
            await other.close()

    run(scenario())
