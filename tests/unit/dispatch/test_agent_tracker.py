"""Agents of other releases: used, or refused by name."""

from __future__ import annotations

import msgspec
import pytest

from jetmap.dispatch import agent_tracker
from jetmap.dispatch.agent_tracker import AgentTracker
from jetmap.errors import NoWorkers, UnknownFunction
from jetmap.nats.broker import Message
from jetmap.nats.memory import MemoryBroker
from jetmap.wire import messages, subjects
from jetmap.wire.messages import encode
from jetmap.wire.presence import FunctionInfo, Presence

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
        workers=[],
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

    for module in (messages, agent_tracker):
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
