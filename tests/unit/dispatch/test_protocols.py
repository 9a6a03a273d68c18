"""Agents of other releases: used, or refused by name."""

from __future__ import annotations

import msgspec
import pytest

from jetmap.dispatch.attendance import Attendance
from jetmap.errors import NoWorkers
from jetmap.nats.memory import MemoryBroker
from jetmap.wire import messages, subjects
from jetmap.wire.messages import FunctionInfo, Presence, encode

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


async def hearing(*announcements: bytes) -> Attendance:
    async def changed() -> None:
        pass

    broker = MemoryBroker()
    here, there = broker.connect(), broker.connect()
    attendance = Attendance(here, "p", changed)
    await attendance.subscribe()
    for data in announcements:
        await there.publish(subjects.presence("p", "a"), data)
    await here.settle()
    assert here.errors == 0
    return attendance


@pytest.fixture(autouse=True)
def protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    from jetmap.dispatch import attendance

    for module in (messages, attendance):
        monkeypatch.setattr(module, "PROTOCOL", 5)
        monkeypatch.setattr(module, "OLDEST_PROTOCOL", 3)


async def test_agents_that_speak_with_us_are_used() -> None:
    for protocol, oldest in ((3, 1), (5, 5), (9, 4)):
        attendance = await hearing(encode(agent("h", protocol, oldest)))
        await attendance.find("f", None, 0.0)
        assert attendance.roster.all_cores == 2


@pytest.mark.parametrize(
    ("protocol", "oldest", "advice"),
    [(2, 1, "upgrade jetmap on those hosts"), (9, 6, "upgrade jetmap here")],
)
async def test_others_are_refused_with_their_versions(
    protocol: int, oldest: int, advice: str
) -> None:
    attendance = await hearing(encode(agent("h", protocol, oldest)))
    with pytest.raises(NoWorkers) as caught:
        await attendance.find("f", None, 0.0)
    text = str(caught.value)
    for part in ("'f'", f"h runs jetmap 0.{protocol}.0", f"protocol {protocol};", "3 to 5", advice):
        assert part in text
    assert attendance.roster.all_cores == 1


async def test_an_agent_that_speaks_with_us_is_used_beside_another() -> None:
    attendance = await hearing(encode(agent("old", 2, 1)), encode(agent("new", 5, 3)))
    await attendance.find("f", None, 0.0)
    assert attendance.roster.all_cores == 2
    assert [p.host for p in attendance.roster.strangers] == ["old"]


async def test_an_announcement_of_another_shape_is_refused_by_name_too() -> None:
    fields = msgspec.msgpack.decode(encode(agent("h", 9, 6)))
    attendance = await hearing(msgspec.msgpack.encode(fields | {"functions": {"f": 1}}))
    assert "h runs jetmap 0.9.0" in str(attendance.no_workers("f"))
