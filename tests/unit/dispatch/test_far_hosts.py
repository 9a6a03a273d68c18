"""Agents far from their broker: real dispatchers and agents, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from jetmap.agent.agent import Agent
from jetmap.dispatch.costs import Cost, Cutting
from simulated_pool import SimulatedPool, Work, mapped
from virtual_time import run
from waiting import wait_until

CORES = 2
_random = Random(1)
UNEVEN = [_random.lognormvariate(-5.6, 0.8) for _ in range(400)]

LISTS: dict[str, tuple[Callable[[int], float], int]] = {
    "equal": (lambda item: 0.0015, 2000),
    "uneven": (lambda item: UNEVEN[item], 400),
    "short": (lambda item: 5e-4, 1_600),
    "long": (lambda item: 0.1, 100),
}


def seconds(name: str, round_trip: float) -> float:
    """Seconds that a list takes whose cost is known from an earlier map."""
    cost, items = LISTS[name]

    async def scenario() -> float:
        async with SimulatedPool(work=Work(seconds=cost)) as pool:
            await pool.agent(CORES, round_trip=round_trip)
            dispatcher = await pool.dispatcher()
            await mapped(dispatcher, list(range(items)))
            began = asyncio.get_running_loop().time()
            values = await mapped(dispatcher, list(range(items)))
            assert values == [2 * item for item in range(items)]
            return asyncio.get_running_loop().time() - began

    return run(scenario())


@pytest.mark.parametrize("name", LISTS)
def test_far_cores_compute_nearly_as_much_as_near_ones(name: str) -> None:
    near = seconds(name, 0.0)
    assert near / seconds(name, 0.02) >= 0.9
    assert near / seconds(name, 0.04) >= 0.85


def test_a_chunk_that_came_too_early_runs_on_another_host() -> None:
    """One item takes a minute, where items took 10 ms: what waits behind it moves."""
    work = Work(seconds=lambda item: 60.0 if item == 100 else 0.01)

    async def scenario() -> None:
        async with SimulatedPool(work=work) as pool:
            for host in ("one", "other"):
                await pool.agent(1, host=host, round_trip=0.02)
            dispatcher = await pool.dispatcher()
            await mapped(dispatcher, list(range(100)))
            items = list(range(300))
            running = asyncio.ensure_future(mapped(dispatcher, items))
            await asyncio.sleep(10)
            assert len(work.runs) == 300, "an item waits behind the long one"
            assert await running == [2 * item for item in items]

    run(scenario())
    assert {item: n for item, n in work.runs.items() if item >= 100} == dict.fromkeys(
        range(100, 300), 1
    )


def test_agents_say_how_far_they_are_and_chunks_are_cut_for_it() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            await pool.agent(3, host="near")
            await pool.agent(1, host="far", round_trip=0.04)
            dispatcher = await pool.dispatcher()
            await mapped(dispatcher, [1])
            await asyncio.sleep(3)
            found = {p.host: p.round_trip for p in dispatcher.roster.agents}
            assert found == {"near": 0.0, "far": 0.04}
            assert dispatcher.roster.round_trip == pytest.approx(0.01)
            assert dispatcher._scheduler.cutting.round_trip == pytest.approx(0.01)

    run(scenario())


def test_a_far_pool_gets_no_shorter_chunks_than_its_round_trip() -> None:
    cost = Cost()
    cost.learn(10, 0.01, 0)
    cutting = Cutting().fitted(8, 0.04)
    assert cutting.count(cost, 100, 8) == 40
    assert Cutting().count(cost, 100, 8) == 6


def waiting(agent: Agent) -> int:
    """Count the chunks that an agent keeps for cores that still compute."""
    return len(agent._chunks.prefetch._waiting)


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
