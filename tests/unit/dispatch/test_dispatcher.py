"""Dispatchers and agents together, over a network that loses, doubles, delays and reorders."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.nats.memory import MemoryBroker
from jetmap.wire.messages import Report
from jetmap.wire.presence import Presence
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


def test_announcements_of_idle_agents_wake_nobody_but_keep_them_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[Presence] = []
    take = Dispatcher._on_presence

    async def counted(self: Dispatcher, presence: Presence) -> None:
        taken.append(presence)
        await take(self, presence)

    monkeypatch.setattr(Dispatcher, "_on_presence", counted)

    async def scenario() -> None:
        async with SimulatedPool() as pool:
            agents = [await pool.agent(2, host) for host in "abc"]
            dispatcher = await pool.dispatcher()
            await mapped(dispatcher, [1])
            await asyncio.sleep(20.0)
            taken.clear()
            await asyncio.sleep(20.0)
            assert taken == []
            assert [agent.busy for agent in dispatcher.roster.agents] == [0, 0, 0]
            await pool.kill(agents[0])
            await asyncio.sleep(20.0)
            assert [agent.host for agent in dispatcher.roster.agents] == ["b", "c"]
            # An open map may have chunks for cores that still idle.
            pool.work.seconds = lambda item: 10.0
            running = asyncio.ensure_future(mapped(dispatcher, [1]))
            await asyncio.sleep(8.0)
            assert {agent.host for agent in taken} == {"b", "c"} and len(taken) >= 6
            await running

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


@given(st.sets(st.sampled_from(ITEMS), max_size=4), st.lists(st.booleans(), max_size=60))
@example({3}, [])
@examples(20)
def test_what_comes_past_the_broker_is_taken_in_before_a_crash_that_it_came_before(
    bad: set[int], refused: list[bool]
) -> None:
    """refused: whether the short way takes each of the first reports."""

    async def scenario() -> None:
        on_the_way: list[Report] = []

        def arrive() -> None:
            arrived, on_the_way[:] = on_the_way[:], []
            dispatcher.take(arrived)

        def shortcut(report: Report) -> bool:
            if refused and refused.pop():
                return False
            on_the_way.append(report)
            # Long after what the agent says of its worker's death.
            asyncio.get_running_loop().call_later(0.2, arrive)
            return True

        work = Work(kills=bad.__contains__, shortcut=shortcut)
        async with SimulatedPool(work=work) as pool:
            agent = await pool.agent(2)
            dispatcher = await pool.dispatcher()
            dispatcher.before_results = arrive
            assert await mapped(dispatcher, ITEMS) == [
                None if item in bad else 2 * item for item in ITEMS
            ]
            assert all(work.runs[item] == (2 if item in bad else 1) for item in ITEMS)
            await asyncio.sleep(5)
            assert not len(agent._chunks._held), "the agent holds no chunk that has ended"

    run(scenario())


def test_a_caller_that_leaves_while_its_map_opens_leaves_no_map_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its notice to the other dispatchers waits for a slow connection."""

    async def scenario() -> None:
        async with SimulatedPool(work=Work(seconds=lambda item: 60.0)) as pool:
            await pool.agent(1)
            dispatcher = await pool.dispatcher()
            monkeypatch.setattr(dispatcher.steering, "speak", asyncio.Event().wait)
            opening = asyncio.ensure_future(mapped(dispatcher, ITEMS))
            await asyncio.sleep(1.0)
            assert dispatcher.open_maps == 1
            opening.cancel()
            await asyncio.sleep(1.0)
            assert opening.cancelled() and not dispatcher.open_maps
            monkeypatch.undo()

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
