"""Agents of other releases: used, or refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from jetmap.dispatch import agent_tracker
from jetmap.dispatch.agent_tracker import AgentTracker, Digests
from jetmap.errors import NoWorkers, UnknownFunction
from jetmap.nats.broker import Message
from jetmap.nats.memory import MemoryBroker
from jetmap.wire import protocol as versions
from jetmap.wire import subjects
from jetmap.wire.messages import Ping, encode
from jetmap.wire.presence import FunctionInfo, Presence
from virtual_time import pass_time
from virtual_time import run as in_virtual_time

pytestmark = pytest.mark.anyio


def agent(host: str, protocol: int, oldest: int) -> Presence:
    return Presence(
        agent=host,
        host=host,
        pid=1,
        pool="p",
        offer="o",
        version="1",
        rank=1,
        cores=2,
        ready=2,
        busy=0,
        draining=False,
        gone=False,
        functions=[FunctionInfo("f")],
        listed=[],
        packages={"jetmap": f"0.{protocol}.0"},
        protocol=protocol,
        oldest_protocol=oldest,
    )


async def hearing(*announcements: bytes, broker: MemoryBroker | None = None) -> AgentTracker:
    async def announced(presence: Presence) -> None:
        pass

    broker = broker or MemoryBroker()
    here, there = broker.connect(), broker.connect()
    tracker = AgentTracker(here, "p", announced)
    await tracker.subscribe()
    for data in announcements:
        await there.publish(subjects.presence("p", "a"), data)
    await here.settle()
    assert here.errors == 0
    return tracker


@pytest.fixture(autouse=True)
def protocols(monkeypatch: pytest.MonkeyPatch) -> None:

    for module in (versions, agent_tracker):
        monkeypatch.setattr(module, "PROTOCOL", 5)
        monkeypatch.setattr(module, "OLDEST_PROTOCOL", 3)


async def test_agents_that_speak_with_us_are_used() -> None:
    for protocol, oldest in ((3, 1), (5, 5), (9, 4)):
        tracker = await hearing(encode(agent("h", protocol, oldest)))
        await tracker.find("f", None, 0.0)
        assert tracker.roster.all_cores == 2


@pytest.mark.parametrize(
    ("protocol", "oldest", "advice"),
    [(2, 1, "upgrade jetmap on those hosts"), (9, 6, "upgrade jetmap here")],
)
async def test_others_are_refused_with_their_versions(
    protocol: int, oldest: int, advice: str
) -> None:
    tracker = await hearing(encode(agent("h", protocol, oldest)))
    with pytest.raises(NoWorkers) as caught:
        await tracker.find("f", None, 0.0)
    text = str(caught.value)
    for part in ("'f'", f"h runs jetmap 0.{protocol}.0", f"protocol {protocol};", "3 to 5", advice):
        assert part in text
    assert tracker.roster.all_cores == 1


async def test_an_agent_that_speaks_with_us_is_used_beside_another() -> None:
    tracker = await hearing(encode(agent("old", 2, 1)), encode(agent("new", 5, 3)))
    await tracker.find("f", None, 0.0)
    assert tracker.roster.all_cores == 2
    assert [p.host for p in tracker.roster.strangers] == ["old"]


async def test_an_announcement_of_another_shape_is_refused_by_name_too() -> None:
    fields = msgspec.msgpack.decode(encode(agent("h", 9, 6)))
    tracker = await hearing(msgspec.msgpack.encode(fields | {"functions": {"f": 1}}))
    assert "h runs jetmap 0.9.0" in str(tracker.no_workers("f"))


async def answering(*, heard: Presence, asked: Presence) -> AgentTracker:
    """Return a tracker that knows one agent; the other announces itself when asked."""
    broker = MemoryBroker()
    there = broker.connect()

    async def on_ping(_message: Message) -> None:
        await there.publish(subjects.presence("p", "b"), encode(asked))

    await there.subscribe(subjects.control("p"), on_ping)
    return await hearing(encode(heard), broker=broker)


@pytest.mark.parametrize("trusts", [True, False])
async def test_an_agent_that_is_heard_second_is_met(trusts: bool) -> None:
    first = msgspec.structs.replace(agent("first", 5, 3), functions=[FunctionInfo("other")])
    second = msgspec.structs.replace(
        agent("second", 5, 3),
        agent="b",
        trusts=trusts,
        functions=[] if trusts else [FunctionInfo("f")],
    )
    tracker = await answering(heard=first, asked=second)
    await tracker.meet("f", 60)
    assert [p.host for p in tracker.roster.agents] == ["first", "second"]


async def test_nobody_who_could_run_a_function_is_waited_for_no_longer_than_asked() -> None:
    first = msgspec.structs.replace(agent("first", 5, 3), functions=[FunctionInfo("other")])
    tracker = await answering(heard=first, asked=first)
    await tracker.meet("f", 0)
    with pytest.raises(UnknownFunction):
        await tracker.find("f", None, 0)


# Functions by digest


class Agents:
    """Agents that announce functions by a digest, and in full if they are asked."""

    def __init__(self, broker: MemoryBroker, *names: str) -> None:
        self.connection = broker.connect()
        self.names = names
        self.asked: list[str] = []

    async def start(self) -> None:
        await self.connection.subscribe(subjects.control("p"), self._on_ping)
        await self.announce()

    async def announce(self, *, functions: bool = False, names: Sequence[str] = ()) -> None:
        for name in names or self.names:
            infos = [FunctionInfo("f")] if functions else []
            found = msgspec.structs.replace(agent(name, 5, 1), functions=infos, digest="d1")
            found.now = 1.0 + len(self.asked)
            await self.connection.publish(subjects.presence("p", name), encode(found))

    async def _on_ping(self, message: Message) -> None:
        ping = msgspec.msgpack.decode(message.data, type=Ping)
        self.asked.append(ping.agent)
        await self.announce(functions=bool(ping.agent), names=[ping.agent] if ping.agent else [])


async def test_one_agent_is_asked_for_the_functions_of_all_with_its_digest() -> None:
    broker = MemoryBroker()
    tracker = await hearing(broker=broker)
    agents = Agents(broker, "a", "b", "c")
    await agents.start()
    await tracker.find("f", None, 1.0)
    assert await tracker.wait_for(lambda: tracker.roster.all_cores == 6, 1.0)
    assert [asked for asked in agents.asked if asked] == ["a"]
    lists = [id(presence.functions) for presence in tracker.roster.agents]
    assert len(lists) == 3 and len(set(lists)) == 1, "they share one list"
    await agents.announce()
    assert tracker.roster.offers("f").newest == "o"


async def test_an_announcement_that_says_nothing_new_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker = await hearing()
    there = msgspec.structs.replace(agent("a", 5, 1), digest="d1", now=1.0)
    (broker,) = {tracker._connection._broker}  # type: ignore[attr-defined]
    connection = broker.connect()

    async def announce(**changes: Any) -> Presence:
        data = encode(msgspec.structs.replace(there, **changes))
        await connection.publish(subjects.presence("p", "a"), data)
        await tracker._connection.settle()  # type: ignore[attr-defined]
        (found,) = tracker.roster.agents
        return found

    first = await announce()
    monkeypatch.setattr(agent_tracker, "read_presence", None)
    again = await announce(now=3.0)
    assert again is first and again.now == 3.0
    monkeypatch.undo()
    changed = await announce(now=5.0, busy=1)
    assert changed is not first and changed.busy == 1


async def test_while_no_map_is_open_announcements_are_processed_where_they_are_read() -> None:
    broker, quiet, heard, whole = MemoryBroker(), [True], [], []

    async def on_presence(presence: Presence) -> None:
        whole.append(presence.busy)

    here, there = broker.connect(), broker.connect()
    tracker = AgentTracker(
        here, "p", on_presence, lambda presence: heard.append(presence.busy), lambda: quiet[0]
    )
    await tracker.subscribe()
    infos = [FunctionInfo("f")]
    first = msgspec.structs.replace(agent("a", 5, 1), digest="d1", functions=infos, now=1.0)

    async def announce(**changes: Any) -> None:
        data = encode(msgspec.structs.replace(first, **changes))
        await there.publish(subjects.presence("p", "a"), data)
        await here.settle()

    await announce()
    assert (whole, heard) == ([0], []), "its functions are new"
    await announce(now=3.0, functions=[])
    await announce(now=5.0, functions=[], busy=1)
    assert (whole, heard) == ([0], [0, 1])
    [there_is] = tracker.roster.agents
    assert there_is.busy == 1 and there_is.functions == infos
    quiet[0] = False
    await announce(now=7.0, functions=[], busy=2)
    assert (whole, heard) == ([0, 2], [0, 1]), "a map may wait for it"
    quiet[0] = True
    waiting = asyncio.create_task(tracker.wait_for(lambda: tracker.roster.agents[0].busy == 3, 60))
    await asyncio.sleep(0)
    await announce(now=8.0, functions=[], busy=3)
    assert await waiting and (whole, heard) == ([0, 2, 3], [0, 1]), "somebody waits for it"
    await there.publish(subjects.presence("p", "a"), b"\xc1")
    await here.settle()
    await announce(now=9.0, functions=[], gone=True)
    assert tracker.roster.agents == []


def by_digest(name: str, digest: str, *functions: str, **more: Any) -> Presence:
    infos = [FunctionInfo(function) for function in functions]
    return msgspec.structs.replace(agent(name, 5, 1), digest=digest, functions=infos, **more)


def test_agents_wait_until_their_functions_are_known() -> None:
    digests = Digests()

    def heard(presence: Presence, now: float = 1.0) -> list[str]:
        complete = digests.complete(presence, b"", now)
        assert all(found.functions or not found.digest or found.gone for found, _ in complete)
        return [found.host for found, _ in complete]

    assert heard(by_digest("a", "d1")) == []
    assert digests.is_to_be_asked("d1", 1.0) and not digests.is_to_be_asked("d1", 1.5)
    assert heard(by_digest("b", "d1"), 1.5) == []
    assert digests.is_to_be_asked("d1", 2.5), "the first did not answer"
    assert heard(by_digest("c", "d1"), 2.5) == [] and heard(by_digest("x", "d1")) == []
    assert heard(by_digest("x", "d1", gone=True)) == ["x"], "it waits no longer"
    assert heard(by_digest("y", "d1")) == [] and heard(by_digest("y", "", "f")) == ["y"]
    assert heard(by_digest("b", "d1", "f"), 2.5) == ["b", "a", "c"]
    assert not digests.is_to_be_asked("d1", 9.0)
    assert heard(by_digest("d", "d1"), 9.0) == ["d"]
    assert heard(by_digest("e", "d2"), 10.0) == []
    assert heard(by_digest("f", "d2", "g"), 20.0) == ["f"], "e has fallen silent"
    strange = msgspec.structs.replace(by_digest("g", "d3"), protocol=9, oldest_protocol=9)
    assert heard_strange(digests, strange) == ["g"]
    assert digests.count == 2
    digests.forget({"d2"}, 20.0)
    assert heard(by_digest("a", "d1"), 21.0) == [] and heard(by_digest("h", "d2"), 21.0) == ["h"]


def heard_strange(digests: Digests, presence: Presence) -> list[str]:
    return [found.host for found, _ in digests.complete(presence, b"", 20.0)]


def test_time_in_which_this_process_is_frozen_is_not_waited() -> None:
    """Announcements that came meanwhile are read first."""

    async def scenario() -> bool:
        tracker = AgentTracker(MemoryBroker().connect(), "p", announced)
        waiting = asyncio.create_task(tracker.wait_for(lambda: bool(came), 1.0))
        await asyncio.sleep(0.1)
        pass_time(50)
        asyncio.get_running_loop().call_later(0.4, came.append, 1)
        return await waiting

    async def announced(presence: Presence) -> None: ...

    came: list[int] = []
    assert in_virtual_time(scenario())
