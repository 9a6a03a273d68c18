"""The broker in memory: its network, and connections that are lost. (See also the contract.)"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jetmap.errors import BrokerUnreachable, TooLarge
from jetmap.nats.broker import Message
from jetmap.nats.memory import MemoryBroker
from virtual_time import run as in_virtual_time


class Ear:
    """The messages that a subscription has received."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message.data)


def test_the_network_decides_the_fate_of_each_message() -> None:
    fates: dict[bytes, Sequence[float]] = {b"lost": (), b"twice": (0.0, 0.0), b"late": (5.0,)}

    async def scenario() -> None:
        broker = MemoryBroker(network=lambda subject, data: fates.get(data, (0.0,)))
        here, there = broker.connect(), broker.connect()
        ear = Ear()
        await there.subscribe("a.>", ear)
        for data in (b"lost", b"late", b"twice", b"once"):
            await here.publish("a.b", data)
        await asyncio.sleep(1)
        # Both on the way to the server and from it.
        assert ear.messages == [b"twice"] * 4 + [b"once"]
        await asyncio.sleep(10)
        assert ear.messages[5:] == [b"late"]

    in_virtual_time(scenario())


def test_messages_wait_for_a_lost_connection_up_to_a_limit() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        here, there = broker.connect(), broker.connect()
        ear, events = Ear(), list[str]()

        async def lost() -> None:
            events.append("lost")

        async def back() -> None:
            events.append("back")

        here.on_lost(lost)
        here.on_reconnect(back)
        await there.subscribe("a", ear)
        here.lose()
        here.lose()
        await here.publish("a", b"waited")
        with pytest.raises(BrokerUnreachable, match="too much waits to be sent"):
            for _ in range(100):
                await here.publish("b", b"0" * 900_000)
        with pytest.raises(BrokerUnreachable):
            await here.flush()
        here.restore()
        here.restore()
        await asyncio.sleep(0.1)
        assert ear.messages == [b"waited"] and events == ["lost", "back"]
        with pytest.raises(TooLarge):
            await here.publish("a", b"0" * (here.max_payload + 1))

    in_virtual_time(scenario())


def test_a_callback_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        here, there = broker.connect(), broker.connect("there")
        heard = 0

        async def failing(message: Message) -> None:
            nonlocal heard
            heard += 1
            raise ValueError("broken")

        await there.subscribe("a", failing)
        for _ in range(2):
            await here.publish("a")
        await asyncio.sleep(0.1)
        assert (heard, there.errors) == (2, 2)

    in_virtual_time(scenario())
    assert "there: a callback failed" in caplog.text


def test_a_closed_connection_hears_and_says_nothing() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        here, there = broker.connect(), broker.connect()
        ear = Ear()
        await there.subscribe("a", ear)
        await there.close()
        await there.close()
        await here.publish("a")
        await asyncio.sleep(0.1)
        assert not ear.messages
        with pytest.raises(BrokerUnreachable):
            await there.publish("a")

    in_virtual_time(scenario())
