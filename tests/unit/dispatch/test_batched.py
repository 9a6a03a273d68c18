"""Batches of a whole pool: dispatchers and agents that share calls, whatever its items do."""

from __future__ import annotations

import asyncio

from hypothesis import example, given
from hypothesis import strategies as st

from hypotheses import examples
from simulated_pool import SimulatedPool, Work, mapped
from virtual_time import run

MAPS = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=20), min_size=1, max_size=6)


@given(
    MAPS,
    st.sets(st.integers(0, 40), max_size=2),
    st.lists(st.integers(1, 3), min_size=1, max_size=2),
    st.integers(1, 2),
    st.sampled_from([0.001, 0.03]),
)
@example([[1], [2], [3], [4]] * 3, {3}, [1], 2, 0.03)
@example([list(range(20)), list(range(20, 41))], {5, 35}, [1, 2], 1, 0.001)
@examples(16)
def test_each_item_has_its_own_outcome(
    maps: list[list[int]], deadly: set[int], agents: list[int], callers: int, seconds: float
) -> None:
    work = Work(seconds=lambda item: seconds, kills=deadly.__contains__, batch=8)

    async def scenario() -> list[list[int | None]]:
        async with SimulatedPool(work=work) as pool:
            for number, cores in enumerate(agents):
                await pool.agent(cores, f"host{number}")
            dispatchers = [await pool.dispatcher() for _ in range(callers)]
            runs = [mapped(dispatchers[n % callers], items) for n, items in enumerate(maps)]
            return await asyncio.gather(*runs)

    found = run(scenario())
    for items, values in zip(maps, found, strict=True):
        assert values == [None if item in deadly else 2 * item for item in items]
    assert all(len(call) <= 8 for call in work.calls)
    for item in deadly:
        alone = sum(call == [item] for call in work.calls)
        assert alone == 2 * sum(items.count(item) for items in maps), "two attempts each"


@given(MAPS, st.sets(st.integers(0, 40), max_size=1), st.sampled_from([0.0, 0.06, 0.1, 0.5, 3.0]))
@examples(20)
def test_an_agent_that_vanishes_costs_no_item(
    maps: list[list[int]], deadly: set[int], seconds: float
) -> None:
    work = Work(seconds=lambda item: 0.02, kills=deadly.__contains__, batch=8)

    async def scenario() -> list[list[int | None]]:
        async with SimulatedPool(work=work) as pool:
            doomed = await pool.agent(2, "doomed")
            await pool.agent(1, "host")
            dispatcher = await pool.dispatcher()
            runs = [asyncio.create_task(mapped(dispatcher, items)) for items in maps]
            await asyncio.sleep(seconds)
            await pool.kill(doomed)
            return await asyncio.gather(*runs)

    for items, values in zip(maps, run(scenario()), strict=True):
        assert values == [None if item in deadly else 2 * item for item in items]


def test_maps_of_several_callers_take_few_calls() -> None:
    work = Work(seconds=lambda item: 0.01, batch=64)

    async def scenario() -> None:
        async with SimulatedPool(work=work) as pool:
            await pool.agent(2)
            callers = [await pool.dispatcher() for _ in range(4)]
            maps = [mapped(callers[n % 4], [n]) for n in range(64)]
            assert await asyncio.gather(*maps) == [[2 * n] for n in range(64)]

    run(scenario())
    assert len(work.calls) <= 4
