"""Agents far from their broker: real dispatchers and agents, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from jetmap.dispatch.costs import Cost, Cutting
from simulated_pool import SimulatedPool, Work, mapped
from virtual_time import run

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


@pytest.mark.parametrize(
    "name",
    [
        "uneven",
        "short",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("equal", "long")),
    ],
)
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
