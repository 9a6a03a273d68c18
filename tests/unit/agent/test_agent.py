"""The life of an agent on the memory broker: it joins, announces itself, drains and stops."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.agent.announcements import Announcements
from jetmap.nats.memory import MemoryConnection
from jetmap.wire import subjects
from jetmap.wire.messages import Ping, encode
from jetmap.wire.presence import Presence, differ_in_time, read_presence, time_of
from jetmap.wire.protocol import PROTOCOL
from simulated_pool import SimulatedPool, SimulatedWorker, Work, mapped
from virtual_time import run


class Listener:
    """A connection that hears what agents announce."""

    def __init__(self, pool: SimulatedPool) -> None:
        self.connection = pool._connect("listener")
        self.heard: list[Presence] = []

    async def start(self) -> None:
        async def hear(message: Any) -> None:
            self.heard.append(msgspec.msgpack.decode(message.data, type=Presence))

        await self.connection.subscribe(subjects.all_presence("default"), hear)


def test_an_agent_announces_itself_until_it_is_gone() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            listener = Listener(pool)
            await listener.start()
            agent = await pool.agent(2)
            assert not agent.was_ready
            await asyncio.sleep(3)
            assert agent.was_ready and agent.refused is None
            latest = listener.heard[-1]
            assert (latest.cores, latest.ready, bool(latest.offer)) == (2, 2, True)
            heard = len(listener.heard)
            await listener.connection.publish(subjects.control("default"), encode(Ping(PROTOCOL)))
            await asyncio.sleep(0.01)
            assert len(listener.heard) == heard + 1
            await agent.drain(5.0)
            assert any(presence.draining for presence in listener.heard)
            assert listener.heard[-1].gone and listener.heard[-1].ready == 0
            assert len(agent._background) == len(agent._cores) == 0, "no task is left"
            heard = len(listener.heard)
            await agent.stop()
            await asyncio.sleep(10)
            assert len(listener.heard) == heard

    run(scenario())


def test_a_stop_cuts_a_drain_short_and_both_wait_for_the_workers() -> None:
    async def scenario() -> None:
        async with SimulatedPool() as pool:
            agent = await pool.agent(2)
            await asyncio.sleep(1)
            draining = asyncio.ensure_future(agent.drain(60.0))
            await asyncio.sleep(0)
            await agent.stop()
            await draining
            assert all(slot.detail().pid is None for slot in agent._slots)

    run(scenario())


@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.4, 3.0]), min_size=1, max_size=20),
    st.sets(st.integers(0, 19), max_size=3),
    st.integers(0, 1),
)
@examples(30)
def test_what_is_announced_again_is_what_would_be_announced_anew(
    seconds: list[float], bad: set[int], batch: int
) -> None:
    message = Announcements.message
    counts = {"again": 0}

    def checked(self: Announcements, pending: int, limit: int) -> bytes:
        before = self._announced
        data, latest = message(self, pending, limit), self._announced
        self._announced = before
        anew = self._encoded(pending, limit)
        assert self._announced == latest
        assert differ_in_time(data, anew), (read_presence(data), read_presence(anew))
        assert time_of(data) == time_of(anew)
        counts["again"] += data is not self._message
        return data

    async def scenario() -> None:
        work = Work(seconds=lambda item: seconds[item % len(seconds)], kills=bad.__contains__)
        work.batch = 4 * batch
        async with SimulatedPool(work=work) as pool:
            for host in "ab":
                await pool.agent(2, host)
            dispatcher = await pool.dispatcher()
            await mapped(dispatcher, list(range(20)))
            await asyncio.sleep(30.0)

    with mock.patch.object(Announcements, "message", checked):
        run(scenario())
    assert counts["again"] >= 20, "an agent that idles"


def test_an_agent_that_idles_does_little_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*given: Any, **more: Any) -> Any:
            calls[name] += 1
            return original(*given, **more)

        monkeypatch.setattr(owner, name, counted)

    async def scenario() -> None:
        async with SimulatedPool() as pool:
            listener = Listener(pool)
            await listener.start()
            await pool.agent(16)
            await asyncio.sleep(120.0)
            listener.heard.clear()
            count(asyncio, "sleep")
            count(Announcements, "presence")
            count(SimulatedWorker, "memory")
            count(MemoryConnection, "round_trip")
            await asyncio.sleep(120.0)
            assert len(listener.heard) == 60

    run(scenario())
    assert calls.pop("sleep") <= 75, "it wakes for its beats; the broker in memory sleeps, too"
    assert calls.pop("presence", 0) <= 2
    assert calls.pop("memory") <= 3 * 16
    assert calls.pop("round_trip") <= 3
