"""Reports are gathered for each dispatcher, sent, and sent again until they are confirmed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from jetmap.agent.holdings import HeldChunk, Holdings, Lease
from jetmap.agent.reports import DELIVERY_BYTES, Reports, too_large
from jetmap.wire.messages import ChunkHead, Crash, Delivery, Final, Report, Rest, encode
from jetmap.wire.timing import BEAT


class Desk:
    """The reports of one agent, and what they send."""

    def __init__(self, room: int = 1 << 20) -> None:
        self.sent: list[tuple[str, Delivery]] = []
        self.held = Holdings()
        self.reports = Reports(self.held, "agent", "mail", self._send, lambda: room)

    async def _send(self, subject: str, data: bytes) -> None:
        self.sent.append((subject, msgspec.msgpack.decode(data, type=Delivery)))

    def hold(self, number: int, inbox: str = "i", pending: int = 0) -> HeldChunk:
        head = ChunkHead("m", number, 1, "f", "json", 0, 3, inbox, None, 0.0)
        held = HeldChunk(head, [Lease("ack", 1)], b"", pending, 0, self.reports)
        assert self.held.add(held, 0.0)
        return held


def report(number: int, size: int = 1) -> bytes:
    return encode(Report("m", number, 1, 0, 1, b"[%s]" % (b"1" * size), [], 0.1))


def test_reports_for_one_dispatcher_share_a_message() -> None:
    desk = Desk()
    chunks = [desk.hold(1), desk.hold(2), desk.hold(3, inbox="j"), desk.hold(4, pending=7)]

    async def scenario() -> None:
        for held in chunks:
            await desk.reports.add(held, report(held.head.number))
        assert not desk.sent and [held.unsent for held in chunks] == [1, 1, 1, 1]
        await desk.reports.flush()
        await desk.reports.flush()

    asyncio.run(scenario())
    found = [(to, d.pending, [r.number for r in d.reports]) for to, d in desk.sent]
    assert found == [("i.result", 0, [1, 2]), ("j.result", 0, [3]), ("i.result", 7, [4])]
    assert [held.unsent for held in chunks] == [0, 0, 0, 0]
    assert len({delivery.token for _, delivery in desk.sent}) == 3


@pytest.mark.parametrize("room", [50_000, 1 << 20])
def test_a_message_is_as_large_as_the_broker_takes(room: int) -> None:
    desk = Desk(room)
    held = desk.hold(1)

    async def scenario() -> None:
        for _ in range(40):
            await desk.reports.add(held, report(1, size=20_000))
        await desk.reports.flush()

    asyncio.run(scenario())
    sizes = [sum(len(r.values) for r in delivery.reports) for _, delivery in desk.sent]
    assert sum(len(delivery.reports) for _, delivery in desk.sent) == 40
    assert max(sizes) <= min(room, DELIVERY_BYTES) and len(sizes) < 40


def test_a_delivery_is_repeated_until_it_is_confirmed() -> None:
    desk = Desk()
    held = desk.hold(1)
    held.finished = True

    async def scenario() -> None:
        await desk.reports.add(held, report(1))
        await desk.reports.flush()
        at = next(iter(desk.held._sent.values())).at
        await desk.reports.send_overdue(at + BEAT / 2)
        assert len(desk.sent) == 1
        await desk.reports.send_overdue(at + BEAT)
        await desk.reports.send_overdue(at + BEAT)
        assert len(desk.sent) == 2 and desk.sent[0] == desk.sent[1]
        assert desk.held.confirm([desk.sent[0][1].token]) == [held]
        await desk.reports.send_overdue(at + 10 * BEAT)

    asyncio.run(scenario())
    assert len(desk.sent) == 2


@pytest.mark.parametrize(
    "more",
    [{"final": Final(2, Crash(2, "died", "x"))}, {"final": Final(2)}, {"rest": Rest(2, 0.5)}],
)
def test_a_report_without_outcomes_says_where_it_ends(more: dict[str, Any]) -> None:
    desk = Desk()
    held = desk.hold(5)

    async def scenario() -> None:
        await desk.reports.add_empty(held, 2, **more)
        await desk.reports.flush()

    asyncio.run(scenario())
    ((_, delivery),) = desk.sent
    assert delivery.reports == [Report("m", 5, 1, 2, 0, b"[]", [], 0.0, **more)]


def test_what_the_broker_cannot_carry_fails_its_items() -> None:
    found = msgspec.msgpack.decode(too_large(report(1, size=5_000), 1_000), type=Report)
    assert found.values == b"[null]"
    (error,) = found.errors
    assert (error.index, error.kind) == (0, "unencodable")
    assert "the broker now takes 1,000" in error.message and "max_payload" in error.message
