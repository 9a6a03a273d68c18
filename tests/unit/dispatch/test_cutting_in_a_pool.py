"""Lists of changing cost in a whole pool: real dispatchers and agents, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from jetmap.dispatch.costs import SLACK, Cutting
from simulated_pool import SimulatedPool, Work, mapped
from simulation import greedy
from virtual_time import run

CORES, ITEMS = 8, 200
BOUND = SLACK * Cutting().seconds

_random = Random(4)
PARETO = [0.01 * _random.paretovariate(1.2) for _ in range(ITEMS)]

LISTS: dict[str, Callable[[int], float]] = {
    "dear": lambda item: 0.1,
    "the first is long": lambda item: 0.01 if item else 2.0,
    "the last is long": lambda item: 0.01 if item < ITEMS - 1 else 2.0,
    "dearer and dearer": lambda item: 0.001 * item,
    "suddenly dear": lambda item: 1e-5 if item < ITEMS / 2 else 0.1,
    "pareto": lambda item: PARETO[item],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_after_cheap_maps_takes_little_longer_than_single_items_in_order(name: str) -> None:
    cost = LISTS[name]
    work = Work(seconds=lambda item: 1e-6)

    async def scenario() -> float:
        async with SimulatedPool(work=work) as pool:
            for host in range(2):
                await pool.agent(CORES // 2, host=f"host{host}")
            dispatcher = await pool.dispatcher()
            await mapped(dispatcher, list(range(1000)))
            work.seconds = cost
            work.runs.clear()
            began = asyncio.get_running_loop().time()
            values = await mapped(dispatcher, list(range(ITEMS)))
            assert values == [2 * item for item in range(ITEMS)]
            return asyncio.get_running_loop().time() - began

    took = run(scenario())
    assert set(work.runs.values()) == {1}
    assert took <= 1.1 * greedy([cost(item) for item in range(ITEMS)], CORES) + BOUND
