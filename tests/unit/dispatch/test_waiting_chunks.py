"""Chunks that wait long behind others: real dispatchers and agents, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.dispatch import probes
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.nats.memory_stream import MemoryStream
from jetmap.wire import subjects
from jetmap.wire.timing import PATIENCE
from simulated_pool import SimulatedPool, Work, mapped
from virtual_time import run

CORES = 16
LONG = 60.0


@pytest.fixture(autouse=True)
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a queue be long with few cores."""
    monkeypatch.setattr(probes, "PROBES", 1)


def work_stream(pool: SimulatedPool) -> MemoryStream:
    return pool.broker.jetstream.streams[subjects.stream("default")]


def waiting(pool: SimulatedPool, dispatcher: Dispatcher) -> list[int]:
    """Return the sequence numbers of the chunks that no agent has."""
    unclaimed = {
        flight.subject
        for map in dispatcher.maps
        for flight in map.ledger.flights.values()
        if not flight.claims
    }
    return [m.seq for m in work_stream(pool).messages.values() if m.subject in unclaimed]


async def crowded(pool: SimulatedPool) -> tuple[Dispatcher, asyncio.Future[list[int | None]]]:
    """Start a map of long items on cores that all compute, while more chunks wait."""
    await pool.agent(CORES)
    dispatcher = await pool.dispatcher()
    pool.work.seconds = lambda item: 1.0
    await mapped(dispatcher, list(range(4 * CORES)))
    pool.work.seconds = lambda item: LONG
    return dispatcher, asyncio.ensure_future(mapped(dispatcher, list(range(3 * CORES))))


def test_chunks_behind_long_items_are_seldom_published_again() -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=Work()) as pool:
            dispatcher, running = await crowded(pool)
            await asyncio.sleep(PATIENCE)
            assert len(waiting(pool, dispatcher)) > CORES // 2
            assert await running == [2 * item for item in range(3 * CORES)]
            # Each of them waited for a minute or two.
            assert dispatcher.stats.chunks_again["silent"] <= 3 * LONG
            assert all(pool.work.runs[item] == 2 for item in range(3 * CORES))

    run(scenario())


@pytest.mark.parametrize(
    "after",
    [10.0, *(pytest.param(after, marks=pytest.mark.slow) for after in (3.0, 50.0))],
)
def test_a_broker_that_loses_its_queue_without_a_word_has_it_again_soon(after: float) -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=Work()) as pool:
            dispatcher, running = await crowded(pool)
            await asyncio.sleep(after)
            lost = waiting(pool, dispatcher)
            assert len(lost) > CORES // 2
            work_stream(pool).remove(lost)
            await asyncio.sleep(3 * PATIENCE)
            if after + 3 * PATIENCE < LONG:  # Nothing has ended meanwhile.
                assert len(waiting(pool, dispatcher)) >= len(lost)
            assert await running == [2 * item for item in range(3 * CORES)]

    run(scenario())


def test_a_restarted_broker_has_all_that_waits_within_seconds() -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=Work()) as pool:
            dispatcher, running = await crowded(pool)
            await asyncio.sleep(20.0)
            lost = len(waiting(pool, dispatcher))
            pool.broker.restart()
            await asyncio.sleep(PATIENCE)
            assert len(waiting(pool, dispatcher)) >= lost
            assert await running == [2 * item for item in range(3 * CORES)]

    run(scenario())
