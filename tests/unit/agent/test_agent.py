"""The life of an agent on the memory broker: it joins, announces itself, drains and stops."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from jetmap.agent.agent import Agent
from jetmap.wire import subjects
from jetmap.wire.messages import PROTOCOL, Ping, encode
from jetmap.wire.presence import Presence
from simulated_pool import SimulatedPool
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


def test_a_step_that_fails_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> int:
        steps = 0

        async def step() -> None:
            nonlocal steps
            steps += 1
            if steps < 3:
                raise ValueError("unexpected")

        agent: Any = object.__new__(Agent)
        repeating = asyncio.ensure_future(agent._every(1.0, step))
        await asyncio.sleep(5.5)
        repeating.cancel()
        return steps

    assert run(scenario()) == 5
    assert caplog.text.count("ValueError: unexpected") == 2
