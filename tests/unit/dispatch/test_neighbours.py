"""A dispatcher's shared memory, beside an agent that is only a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from socket import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetmap.dispatch import neighbours as module
from jetmap.dispatch.flight import Flight, Piece
from jetmap.dispatch.neighbours import NeighbourAgents
from jetmap.dispatch.outcomes import Decoded
from jetmap.machine import boot_id
from jetmap.wire import shared_memory
from jetmap.wire.messages import PART_BYTES, SHARE_BYTES, ValuesPlace, encode
from jetmap.wire.shared_memory import ARENA, DATA, WELCOME, Segment, Writer
from jetmap.wire.subjects import new_id
from waiting import wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not shared_memory.is_available(), reason="no memory files here"),
]


class Desk:
    """A dispatcher that has introduced itself to an agent."""

    def __init__(self) -> None:
        self.changes = 0
        self.listening = shared_memory.unix_socket()
        name = f"jetmap-test-{new_id()}"
        self.listening.bind("\0" + name)
        self.listening.listen(1)
        known = {"agent": "a1", "gone": False, "memory_socket": name, "machine": boot_id()}
        self.presence = cast(Any, SimpleNamespace(**known))
        self.neighbours = NeighbourAgents("d1", 1 << 20, self.on_change)
        self.neighbours.begin([self.presence])
        self.agent: socket = self.listening.accept()[0]
        self.agent.setblocking(False)
        for fd in shared_memory.receive(self.agent)[1]:
            module.os.close(fd)

    def on_change(self) -> None:
        self.changes += 1

    async def welcome(self) -> None:
        shared_memory.send(self.agent, encode((WELCOME, 0)), [])
        await wait_until(lambda: self.changes == 1, "the dispatcher is welcome")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.neighbours.leave()
    desk.agent.close()
    desk.listening.close()


def flight(size: int) -> Flight:
    return Flight(1, Piece(0, 1, bytes(size)), "o", 0.0, 0.0, 0.0)


async def test_an_agent_shares_memory_once_it_says_so(desk: Desk) -> None:
    assert not desk.neighbours.are_all([desk.presence])
    await desk.welcome()
    assert desk.neighbours.are_all([desk.presence])
    far: Any = SimpleNamespace(agent="far")
    assert not desk.neighbours.are_all([desk.presence, far])
    assert desk.neighbours.least == SHARE_BYTES < PART_BYTES


async def test_large_items_wait_while_three_quarters_are_in_use(desk: Desk) -> None:
    size = (1 << 20) // 5
    sent = [flight(size) for _ in range(5)]
    for each in sent:
        desk.neighbours.put(each)
    assert [each.region is not None for each in sent] == [True] * 4 + [False]
    assert desk.neighbours.is_crowded
    desk.neighbours.free(sent[0])
    desk.neighbours.free(sent[0])
    assert not desk.neighbours.is_crowded
    region = sent[1].region
    desk.neighbours.put(sent[1])
    assert sent[1].region is region, "it has its items there already"
    desk.neighbours.put(sent[4])
    assert sent[4].region is not None and sent[4].region.offset == DATA


async def test_values_are_decoded_where_they_are_or_copied(desk: Desk) -> None:
    await desk.welcome()
    writer = Writer(Segment.create(1 << 20))
    fd = writer.segment.reopened()
    shared_memory.send(desk.agent, encode((ARENA, 7)), [fd])
    module.os.close(fd)
    region = writer.put(b"values")
    assert region is not None
    place = ValuesPlace(7, region)

    def refuse(values: memoryview) -> list[Any]:
        raise ValueError("it does not fit")

    read = desk.neighbours.read
    decoded = read("a1", place, lambda values: [bytes(values[:3])])
    assert isinstance(decoded, Decoded) and decoded.values == [b"val"] and len(decoded) == 6
    assert read("a1", place, lambda values: None) == read("a1", place, refuse) == b"values"
    assert read("a1", place) == b"values" and desk.neighbours.unconfirmed == 4 * 6
    writer.free(region)
    assert read("a1", place) is read("a1", place, lambda values: []) is None
    assert read("a1", ValuesPlace(8, region)) is None
    writer.segment.close()


@pytest.mark.parametrize("message", [b"\xc1", encode(("secret", 1)), encode(("arena", 1))])
async def test_an_agent_that_says_something_else_is_left(desk: Desk, message: bytes) -> None:
    await desk.welcome()
    shared_memory.send(desk.agent, message, [])
    await wait_until(lambda: not desk.neighbours.are_all([desk.presence]), "it is left")
    assert desk.changes == 2 and not desk.neighbours._views
