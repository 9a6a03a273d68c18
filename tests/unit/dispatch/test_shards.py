"""A pool whose chunks are in several shards: real dispatchers and agents, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from jetmap.errors import BrokerUnreachable
from jetmap.nats.memory import MemoryConnection
from jetmap.wire import pool_streams, subjects
from simulated_pool import SimulatedPool, Work, mapped
from virtual_time import run

ITEMS = list(range(60))
VALUES = [2 * item for item in ITEMS]
WORK = Work(seconds=lambda item: 0.1)


async def stored(connection: MemoryConnection) -> Counter[str]:
    """The number of messages that each work stream has ever stored."""
    counts: Counter[str] = Counter()
    for queue in ("default", *subjects.queues("default", "=3")):
        try:
            info = await connection.api(f"STREAM.INFO.{subjects.stream(queue)}")
        except Exception:
            continue
        counts[queue] = info["state"]["last_seq"]
    return counts


def test_maps_are_spread_over_the_shards() -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=WORK) as pool:
            await pool.agent(4, shards=3)
            follower = await pool.agent(4)
            dispatchers = [await pool.dispatcher() for _ in range(4)]
            # Enough that each shard has one, whatever their ids.
            maps = [mapped(dispatcher, ITEMS[:5]) for dispatcher in dispatchers for _ in range(12)]
            assert await asyncio.gather(*maps) == [VALUES[:5]] * 48
            assert follower.presence.offer.endswith("=3")
            counts = await stored(pool._connections[-1])
            assert set(+counts) == {"default=1", "default=2", "default=3"}

    run(scenario())


@pytest.mark.parametrize(
    ("before", "after"),
    [(2, 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 3), (3, 1)))],
)
def test_agents_follow_a_new_number_while_maps_run(before: int, after: int) -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=WORK) as pool:
            first = await pool.agent(4, shards=before)
            dispatcher = await pool.dispatcher()
            maps = [asyncio.ensure_future(mapped(dispatcher, ITEMS)) for _ in range(5)]
            await asyncio.sleep(1)
            second = await pool.agent(4, shards=after)
            assert await asyncio.gather(*maps) == [VALUES] * 5
            assert first.presence.offer == second.presence.offer
            assert len(subjects.queues("default", first.presence.offer)) == after
            assert first.presence.busy == second.presence.busy == 0

    run(scenario())


def test_the_maps_of_a_lost_shard_go_on_in_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    away: set[str] = set()
    ensure = pool_streams.ensure_stream

    async def ensure_stream(c: Any, queue: str, *options: Any, **more: Any) -> str:
        if queue in away:
            raise BrokerUnreachable("its server is gone")
        return await ensure(c, queue, *options, **more)

    monkeypatch.setattr(pool_streams, "ensure_stream", ensure_stream)

    async def scenario() -> None:
        async with SimulatedPool(work=WORK) as pool:
            agents = [await pool.agent(2, shards=3) for _ in range(2)]
            dispatcher = await pool.dispatcher()
            connection = pool._connections[0]
            maps = [asyncio.ensure_future(mapped(dispatcher, ITEMS)) for _ in range(8)]
            await asyncio.sleep(1)
            out = [flight for map in dispatcher._maps for flight in map.ledger.flights.values()]
            lost = subjects.queue_of(out[0].subject)
            away.add(lost)
            await connection.api(f"STREAM.DELETE.{subjects.stream(lost)}")
            assert await asyncio.gather(*maps) == [VALUES] * 8
            others = [asyncio.ensure_future(mapped(dispatcher, ITEMS)) for _ in range(8)]
            assert await asyncio.gather(*others) == [VALUES] * 8
            joined = await pool.agent(2)
            await asyncio.sleep(10)
            assert joined.presence.offer == agents[0].presence.offer != "", "two shards are enough"
            away.clear()
            await asyncio.sleep(60)
            more = [mapped(dispatcher, ITEMS[:5]) for _ in range(40)]
            assert await asyncio.gather(*more) == [VALUES[:5]] * 40
            assert (await stored(connection))[lost] > 0, "it is used again"

    run(scenario())


def test_an_agent_that_was_cut_off_follows_when_it_is_back() -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=WORK) as pool:
            first = await pool.agent(2)
            await asyncio.sleep(3)
            connection = pool._connections[0]
            connection.lose()
            second = await pool.agent(2, shards=2)
            await asyncio.sleep(3)
            assert first.presence.offer != second.presence.offer
            connection.restore()
            await asyncio.sleep(3)
            assert first.presence.offer == second.presence.offer
            dispatcher = await pool.dispatcher()
            assert await mapped(dispatcher, ITEMS) == VALUES

    run(scenario())
