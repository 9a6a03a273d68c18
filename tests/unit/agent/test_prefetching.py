"""Far cores that ask ahead: what came too early is computed once, here or elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from jetmap.agent.agent import Agent
from jetmap.agent.prefetch import FAR_SECONDS, Prefetch
from jetmap.agent.prefetching import PINGS, Prefetching
from jetmap.errors import BrokerUnreachable
from simulated_pool import SimulatedPool, mapped
from virtual_time import run
from waiting import wait_until

NEAR, FAR = FAR_SECONDS / 5, FAR_SECONDS * 8


class Place:
    """A broker whose answers take these times, and the intake beside it."""

    def __init__(self, *round_trips: float) -> None:
        self.left = list(round_trips)
        self.is_far: bool | None = None

    async def round_trip(self) -> float:
        if not self.left:
            raise BrokerUnreachable("gone")
        return self.left.pop(0)

    def on_measured(self, *, is_far: bool) -> None:
        self.is_far = is_far


@pytest.mark.parametrize(
    ("round_trips", "is_far"),
    [
        ([NEAR], False),
        ([FAR] * PINGS, True),
        ([FAR] * (PINGS - 1) + [NEAR], False),
        ([FAR], None),  # The broker went away meanwhile.
    ],
)
def test_the_shortest_of_some_round_trips_counts(
    round_trips: list[float], is_far: bool | None
) -> None:
    place = Place(*round_trips)
    any_place, nothing = cast(Any, place), cast(Any, None)
    prefetching = Prefetching(Prefetch(), any_place, any_place, nothing, nothing)
    run(prefetching.measure())
    assert place.is_far is is_far and prefetching.is_far is bool(is_far)
    assert not place.left


def waiting(agent: Agent) -> int:
    """Count the chunks that an agent keeps for cores that still compute."""
    return len(agent._chunks.prefetch.waiting)


LATE = 150  # The item that takes far longer than was to be expected.


async def with_a_waiting_chunk(pool: SimulatedPool) -> tuple[Agent, asyncio.Task[list[int | None]]]:
    """Let an agent keep a chunk for a core that computes a long item."""
    pool.work.seconds = lambda item: 0.5 if item == LATE else 0.01
    agent = await pool.agent(1, host="far", round_trip=0.1)
    dispatcher = await pool.dispatcher()
    await mapped(dispatcher, list(range(100)))
    running = asyncio.ensure_future(mapped(dispatcher, list(range(300))))
    await wait_until(lambda: waiting(agent) > 0, "a chunk came too early")
    return agent, running


def test_a_draining_agent_hands_back_what_came_too_early() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            agent, running = await with_a_waiting_chunk(pool)
            await pool.agent(1, host="near")
            await agent.drain(grace=30.0)
            assert waiting(agent) == 0
            assert await running == [2 * item for item in range(300)]

    run(scenario())


def test_what_came_too_early_is_dropped_with_its_map() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            agent, running = await with_a_waiting_chunk(pool)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.sleep(5)
            assert waiting(agent) == 0 and len(agent._chunks._held) == 0
            assert await mapped(pool._dispatchers[0], [1, 2, 3]) == [2, 4, 6]

    run(scenario())


def test_an_agent_that_dies_with_a_waiting_chunk_loses_none_of_its_items() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            agent, running = await with_a_waiting_chunk(pool)
            await pool.agent(1, host="near")
            await pool.kill(agent)
            assert await running == [2 * item for item in range(300)]

    run(scenario())


def test_a_worker_that_dies_leaves_the_chunk_that_waited_for_it() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            agent, running = await with_a_waiting_chunk(pool)
            for slot in agent._slots:
                assert slot._worker is not None
                slot._worker.kill()
            assert await running == [2 * item for item in range(300)]
            assert waiting(agent) == 0

    run(scenario())


def test_the_only_agent_of_a_pool_has_the_next_chunk_of_each_core_with_it() -> None:
    async def scenario() -> None:
        items = list(range(300))
        async with SimulatedPool() as pool:
            pool.work.seconds = lambda item: 0.3 if item % 50 == 0 else 0.01
            agent = await pool.agent(2, ahead=True)
            dispatcher = await pool.dispatcher()
            dispatcher.scheduler.window.fix(2)
            running = asyncio.ensure_future(mapped(dispatcher, items))
            await wait_until(lambda: waiting(agent) == 2, "each core's next chunk is here")
            assert all(not slot.is_idle for slot in agent._slots)
            await asyncio.sleep(0.2)
            assert waiting(agent) == 2, "a pool with one agent has nobody to hand them back to"
            (doomed, *_) = agent._slots
            assert doomed._worker is not None
            doomed._worker.kill()
            assert await running == [2 * item for item in items]
            assert not waiting(agent)
            await asyncio.sleep(5)
            assert not len(agent._chunks._held)

    run(scenario())


def test_short_maps_go_before_what_waits_at_the_only_agent() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            pool.work.seconds = lambda item: 0.001 if item >= 1000 else 0.01
            await pool.agent(1, ahead=True)
            dispatcher = await pool.dispatcher()
            dispatcher.scheduler.window.fix(1)
            await mapped(dispatcher, [1000])
            running = asyncio.ensure_future(mapped(dispatcher, list(range(300))))
            await wait_until(lambda: pool.work.runs[30] > 0, "the long map is on its way")
            assert await mapped(dispatcher, [1001]) == [2002]
            # It waited for the chunks in progress and ahead, not for the long map.
            assert sum(pool.work.runs[item] for item in range(300)) < 100
            assert await running == [2 * item for item in range(300)]

    run(scenario())


def test_cancelled_maps_do_not_gather_at_an_only_agent_that_is_busy() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            pool.work.seconds = lambda item: 60 if item == 1000 else 0.01
            agent = await pool.agent(1, ahead=True)
            dispatcher = await pool.dispatcher()
            dispatcher.scheduler.window.fix(1)
            await mapped(dispatcher, list(range(10)))
            long = asyncio.ensure_future(mapped(dispatcher, [1000]))
            await wait_until(lambda: agent._slots[0].item == 0, "its item is begun")
            most = 0
            for _ in range(10):
                running = asyncio.ensure_future(mapped(dispatcher, list(range(100))))
                await asyncio.sleep(0.2)
                most = max(most, waiting(agent))
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await asyncio.sleep(0.2)
            assert 0 < most <= 4, "those of one map"
            assert await long == [2000] and not waiting(agent)

    run(scenario())
