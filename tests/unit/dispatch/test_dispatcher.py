"""Dispatchers and agents together, over a network that loses, doubles, delays and reorders."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.nats.memory import MemoryBroker
from simulated_pool import SimulatedPool, Work, mapped
from virtual_time import run

ITEMS = list(range(40))
DOUBLED: list[int | None] = [2 * item for item in ITEMS]

# The fate of one message: the seconds until each copy arrives; none is a loss.
FATES = st.lists(
    st.sampled_from([(), (0.0,), (0.0, 0.0), (0.3,), (2.0,), (0.0, 12.0), (15.0,)]),
    max_size=40,
)


class Unreliable:
    """A network that deals out these fates, then delivers everything at once.

    Setting up is spared: an agent or dispatcher whose start fails is another test's business.
    """

    def __init__(self, fates: Sequence[Sequence[float]]) -> None:
        self.started = False
        self._fates = list(reversed(fates))

    def __call__(self, subject: str, data: bytes) -> Sequence[float]:
        if self.started and self._fates and not subject.startswith("$JS.API.STREAM"):
            return self._fates.pop()
        return (0.0,)


@given(FATES, FATES)
@example([()] * 30, [()] * 30)
@examples(60)
def test_every_item_has_its_outcome_whatever_the_network_does(
    first: list[tuple[float, ...]], second: list[tuple[float, ...]]
) -> None:
    async def scenario() -> None:
        network = Unreliable([fate for pair in zip(first, second, strict=False) for fate in pair])
        work = Work(seconds=lambda item: 0.05 if item % 7 else 1.5)
        async with SimulatedPool(MemoryBroker(network=network), work) as pool:
            for host in ("a", "b"):
                await pool.agent(2, host)
            dispatchers = [await pool.dispatcher() for _ in range(2)]
            await mapped(dispatchers[0], [1])  # All are there.
            network.started = True
            results = await asyncio.gather(*(mapped(d, ITEMS) for d in dispatchers))
        assert results == [DOUBLED, DOUBLED]

    run(scenario())


@given(st.floats(0, 3), st.booleans())
@examples(20)
def test_a_killed_agents_chunks_run_elsewhere(after: float, both_busy: bool) -> None:
    async def scenario() -> float:
        work = Work(seconds=lambda item: 0.2)
        async with SimulatedPool(work=work) as pool:
            doomed = await pool.agent(2, "doomed")
            other = await pool.agent(1, "other") if both_busy else None
            dispatcher = await pool.dispatcher()
            running = asyncio.ensure_future(mapped(dispatcher, ITEMS))
            await asyncio.sleep(after)
            await pool.kill(doomed)
            killed = asyncio.get_running_loop().time()
            if other is None:
                await pool.agent(2, "late")
            assert await running == DOUBLED
            return asyncio.get_running_loop().time() - killed

    assert run(scenario()) < 20 + len(ITEMS) * 0.2


@given(st.sets(st.sampled_from(ITEMS), max_size=4))
@examples(20)
def test_an_item_that_kills_its_worker_costs_itself(bad: set[int]) -> None:
    async def scenario() -> None:
        work = Work(kills=bad.__contains__)
        async with SimulatedPool(work=work) as pool:
            await pool.agent(2)
            values = await mapped(await pool.dispatcher(), ITEMS)
        assert values == [None if item in bad else 2 * item for item in ITEMS]
        assert all(work.runs[item] == 2 for item in bad)

    run(scenario())


def test_a_restarted_broker_loses_nothing() -> None:
    async def scenario() -> None:
        work = Work(seconds=lambda item: 0.2)
        async with SimulatedPool(work=work) as pool:
            await pool.agent(2)
            running = asyncio.ensure_future(mapped(await pool.dispatcher(), ITEMS))
            await asyncio.sleep(1)
            pool.broker.restart()
            assert await running == DOUBLED

    run(scenario())
