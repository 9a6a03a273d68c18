"""Dispatchers and agents of one host, with real sockets and segments, and workers that pretend."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jetmap.agent.neighbours import NeighbourDispatchers
from jetmap.dispatch import neighbours as dispatch
from jetmap.dispatch.flight import Flight, Piece
from jetmap.dispatch.neighbours import NeighbourAgents
from jetmap.machine import boot_id
from jetmap.wire import frames, shared_memory
from jetmap.wire.messages import Place, encode
from jetmap.wire.presence import Presence
from jetmap.wire.subjects import new_id
from jetmap.wire.worker_start import Joined, Unshared
from jetmap.worker.neighbours import NeighbourSegments
from waiting import wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not shared_memory.is_available(), reason="no memory files here"),
]
SIZE = 1 << 20


class Worker:
    """A worker in this process, with the code of a real one."""

    def __init__(self) -> None:
        self.shared = NeighbourSegments(os.getpid())
        self.left: list[str] = []

    def send(self, kind: bytes, payload: bytes) -> None:
        if kind == frames.JOINED:
            self.shared.join(msgspec.msgpack.decode(payload, type=Joined))
        else:
            assert kind == frames.LEFT
            self.shared.leave(payload.decode())
            self.left.append(payload.decode())

    def read(self, flight: Flight, inbox: str = "d1") -> bytes | None:
        place = Place(inbox, len(flight.piece.items), flight.region)
        return self.shared.items(SimpleNamespace(inbox=inbox, at=place))  # type: ignore[arg-type]


class Host:
    """An agent and a dispatcher on one host."""

    def __init__(self) -> None:
        self.changes = 0
        self.agent = NeighbourDispatchers(f"jetmap-test-{new_id()}", SIZE)
        self.agent.start()
        self.worker = Worker()
        self.agent.add(self.worker)
        self.dispatchers: list[NeighbourAgents] = []
        self.dispatcher = self.new_dispatcher()

    def new_dispatcher(self, inbox: str = "d1") -> NeighbourAgents:
        def on_change() -> None:
            self.changes += 1

        self.dispatchers.append(NeighbourAgents(inbox, SIZE, on_change))
        return self.dispatchers[-1]

    def presence(self, agent: str = "a1", **more: Any) -> Presence:
        known: Any = {"agent": agent, "gone": False, "memory_socket": self.agent.name}
        return SimpleNamespace(**known | {"machine": boot_id()} | more)  # type: ignore[return-value]

    async def meet(self, dispatcher: NeighbourAgents | None = None) -> None:
        dispatcher, presence = dispatcher or self.dispatcher, self.presence()
        dispatcher.begin([presence])
        await wait_until(lambda: dispatcher.are_all([presence]), "they know each other")


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    yield host
    for dispatcher in host.dispatchers:
        dispatcher.leave()
    host.agent.stop()
    host.worker.shared.close()


def flight(items: bytes) -> Flight:
    return Flight(1, Piece(0, 1, items), "o", 0.0, 0.0, 0.0)


async def test_items_are_read_as_long_as_their_chunk_is_out(host: Host) -> None:
    await host.meet()
    assert host.changes == 1 and "d1" in host.agent
    sent = flight(b"items")
    host.dispatcher.put(sent)
    assert host.worker.read(sent) == b"items"
    region = sent.region
    host.dispatcher.free(sent)
    assert sent.region is None
    sent.region = region
    assert host.worker.read(sent) is None
    assert host.worker.read(sent, "stranger") is None


async def test_values_are_read_until_their_report_is_confirmed(host: Host) -> None:
    await host.meet()
    place = host.worker.shared.put(b"values")
    assert place is not None
    loan = host.agent.lend(host.worker, encode(place))
    assert loan is not None and host.dispatcher.read("a1", place) == b"values"
    assert host.dispatcher.unconfirmed == 6
    loan.end()
    assert host.dispatcher.read("a1", place) is None
    host.agent.rest(host.worker)
    host.agent.rest(host.worker)
    again = host.worker.shared.put(b"others")
    assert again is not None and host.dispatcher.read("a1", again) == b"others"


async def test_a_dead_workers_values_are_kept_until_they_are_read(host: Host) -> None:
    await host.meet()
    place = host.worker.shared.put(b"values")
    assert place is not None
    loan = host.agent.lend(host.worker, encode(place))
    host.agent.remove(host.worker)
    assert loan is not None and host.agent.lend(host.worker, encode(place)) is None
    # A report may come before the segment that it is about: that is read first, then.
    successor = Worker()
    host.agent.add(successor)
    other = successor.shared.put(b"successor")
    assert other is not None and other.arena != place.arena
    assert host.dispatcher.read("a1", other) == b"successor"
    assert host.dispatcher.read("a1", place) == b"values"
    loan.end()
    await wait_until(lambda: len(host.dispatcher._views) == 1, "its segment is dropped")
    successor.shared.close()


async def test_workers_let_go_of_a_dispatcher_that_is_gone(host: Host) -> None:
    await host.meet()
    second = host.new_dispatcher("d2")
    await host.meet(second)
    host.dispatcher.close()  # As the kernel does when it is killed.
    await wait_until(lambda: host.worker.left == ["d1"], "the worker knows")
    assert "d1" not in host.agent and "d2" in host.agent
    sent = flight(b"more")
    second.put(sent)
    assert host.worker.read(sent, "d2") == b"more"


async def test_a_new_worker_finds_out_that_a_dispatcher_is_gone(host: Host) -> None:
    await host.meet()
    host.dispatcher.leave()
    host.agent.add(Worker())  # Before the event loop has told the agent.
    assert "d1" not in host.agent and host.worker.left == ["d1"]


async def test_only_a_worker_that_cannot_map_what_is_there_ends_the_sharing(host: Host) -> None:
    await host.meet()
    sent = flight(b"items")
    host.dispatcher.put(sent)
    (neighbour,) = host.agent._met
    items = neighbour.items
    assert items is not None
    host.agent.on_unshared(Unshared("d2", items, "it has left"))
    host.agent.on_unshared(Unshared("d1", items + 1, "it has come again"))
    assert host.worker.read(sent) == b"items" and "d1" in host.agent
    host.agent.on_unshared(Unshared("d1", items, "permission denied"))
    assert host.worker.left == ["d1"] and "d1" not in host.agent and not host.agent.name


async def test_values_of_an_agent_that_is_gone_are_read_for_a_while(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "LINGER", 3600.0)
    await host.meet()
    place = host.worker.shared.put(b"values")
    host.agent.stop()
    await wait_until(lambda: host.changes == 2, "the dispatcher knows")
    assert place is not None and host.dispatcher.read("a1", place) == b"values"
    assert not host.dispatcher.are_all([host.presence()])
    host.dispatcher._timers["a1"].cancel()
    host.dispatcher._forget("a1")  # What the timer would have called.
    assert host.dispatcher.read("a1", place) is None


async def test_only_neighbours_of_the_same_user_share_memory(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [
        host.presence("far", machine="another"),
        host.presence("old", memory_socket=""),
        host.presence("gone", gone=True),
        host.presence("elsewhere", memory_socket="jetmap-test-nobody"),
    ]
    host.dispatcher.begin(agents)
    assert not host.dispatcher._sockets
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    host.dispatcher.meet(host.presence("stranger"))
    assert not host.dispatcher._sockets
    monkeypatch.undo()
    host.dispatcher.meet(host.presence())
    await wait_until(lambda: "d1" in host.agent, "its own user is let in")
    assert not host.dispatcher.are_all([*agents, host.presence()])


async def test_a_stranger_who_connects_gets_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared_memory.unix_socket() as sock:
        sock.connect("\0" + host.agent.name)
        shared_memory.send(sock, encode(("d9", 0)), [os.open("/dev/null", os.O_RDONLY)])
        await wait_until(lambda: is_closed(sock), "it is no segment")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with shared_memory.unix_socket() as sock:
        sock.connect("\0" + host.agent.name)
        await wait_until(lambda: is_closed(sock), "it is another user")
    assert not host.agent._met


def is_closed(sock: Any) -> bool:
    try:
        return shared_memory.receive(sock)[0] == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def test_nothing_is_shared_before_something_is_large_or_without_memory(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.dispatcher.meet(host.presence())
    assert not host.dispatcher._sockets, "nothing large has come"
    none = NeighbourAgents("d3", 0, lambda: None)
    none.begin([host.presence()])
    assert not none._sockets and none.least > host.dispatcher.least
    refuse(monkeypatch, os, "memfd_create")
    host.dispatcher.begin([host.presence()])
    sent = flight(b"items")
    host.dispatcher.put(sent)
    assert not host.dispatcher._sockets and sent.region is None
    assert not host.dispatcher.is_crowded


def refuse(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    def fail(*_: Any, **__: Any) -> Callable[..., Any]:
        raise OSError("no memory")

    monkeypatch.setattr(module, name, fail)


async def test_an_agent_without_memory_shares_none(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.dispatcher.begin([])
    host.dispatcher._writer = None
    create = shared_memory.Segment.create
    host.dispatcher.meet(host.presence())
    refuse(monkeypatch, shared_memory.Segment, "create")
    await wait_until(lambda: not host.dispatcher._sockets, "the agent has ended it")
    assert "d1" not in host.agent and not host.dispatcher.are_all([host.presence()])
    monkeypatch.setattr(shared_memory.Segment, "create", create)


async def test_a_forked_child_lets_go_of_everything(host: Host) -> None:
    await host.meet()
    dispatch._let_go_in_child()
    assert not host.dispatcher._sockets and host.dispatcher._writer is None
    host.dispatcher.begin([host.presence()])
    assert not host.dispatcher._sockets, "nor does it share any later"
