"""Large values go before their reports; while many are on their way, cores pull no chunks."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from jetmap.agent.holdings import HeldChunk, Holdings
from jetmap.agent.large_values import LargeValues
from jetmap.agent.reports import Reports
from jetmap.background import Background
from jetmap.wire.messages import (
    Chunk,
    ChunkHead,
    Delivery,
    Report,
    ReportHead,
    encode,
)
from jetmap.wire.protocol import PARTS_PROTOCOL, PROTOCOL
from virtual_time import run

HEAD = ReportHead("m", 1, 1, 0, 1)
VALUES = b"[%s]" % (b"1" * 8_000)


class Desk:
    """An agent's reports, and all that its large values go through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, open_bytes: int = len(VALUES)) -> None:
        monkeypatch.setattr("jetmap.agent.large_values.OPEN_BYTES", open_bytes)
        self.max_payload = 1 << 20
        self.idle = 0  # Cores, as the intake counts them.
        self.wanted = True
        self.pushed: list[bytes] = []
        self.stored: list[bytes] = []
        self.withdrawn: list[HeldChunk] = []
        self.reported: list[Report] = []
        self.arrives = asyncio.Event()
        self.reports = Reports(Holdings(), "agent", "mail", self._send, lambda: 1 << 20)
        self.background = Background("test")
        me: Any = self  # The connection, intake, store, transfers and withdrawals.
        self.values = LargeValues(me, me, self.reports, me, me, me, self.background)

    async def _send(self, subject: str, data: bytes) -> None:
        self.reported += msgspec.msgpack.decode(data, type=Delivery).reports

    async def on_core_freed(self) -> None:
        self.idle += 1

    def on_core_lost(self) -> None:
        self.idle -= 1

    async def push(self, held: HeldChunk, head: ReportHead, values: bytes) -> bool:
        await self.arrives.wait()
        self.pushed.append(values)
        return self.wanted

    async def add_large(self, held: HeldChunk, report: bytes, values: bytes) -> None:
        held.unsent += 1  # Until it is stored.
        self.stored.append(values)

    async def withdraw(self, held: HeldChunk) -> None:
        self.withdrawn.append(held)

    def add(self, *, protocol: int = PROTOCOL, sink: Any = None) -> HeldChunk:
        chunk = Chunk("m", 1, 1, "f", "json", 0, 1, "i", None, 0.0, b"[7]", protocol=protocol)
        head = ChunkHead("m", 1, 1, "f", "json", 0, 1, "i", None, 0.0)
        held = HeldChunk(head, [], encode(chunk), 0, 0, cast(Any, sink or self.reports))
        report = encode(Report("m", 1, 1, 0, 1, b"", [], 0.1, size=len(VALUES)))
        self.values.add(held, HEAD, report, VALUES)
        return held


def test_the_report_follows_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        desk = Desk(monkeypatch)
        held = desk.add()
        assert held.unsent == 1 and desk.values.open_bytes == len(VALUES)
        await asyncio.sleep(1)
        assert not desk.reported
        desk.arrives.set()
        await desk.background.finish()
        assert desk.pushed == [VALUES] and desk.values.open_bytes == held.unsent == 0
        assert [(r.values, r.size) for r in desk.reported] == [(b"", len(VALUES))]

    run(scenario())


def test_what_is_not_wanted_any_more_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        desk = Desk(monkeypatch)
        desk.wanted = False
        desk.arrives.set()
        held = desk.add()
        await desk.background.finish()
        assert desk.withdrawn == [held] and not desk.reported and not held.unsent

    run(scenario())


def test_the_values_of_a_job_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        desk = Desk(monkeypatch)
        held = desk.add(sink=desk)
        await desk.background.finish()
        assert desk.stored == [VALUES] and not desk.pushed and not desk.reported
        assert held.unsent == 1, "it is being stored"

    run(scenario())


@pytest.mark.parametrize("fits", [True, False])
def test_an_older_dispatcher_gets_values_within_the_report_or_errors(
    monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    async def scenario() -> None:
        desk = Desk(monkeypatch)
        desk.max_payload = 1 << 20 if fits else len(VALUES)
        desk.add(protocol=PARTS_PROTOCOL - 1)
        await desk.background.finish()
        (report,) = desk.reported
        assert not desk.pushed and [e.kind for e in report.errors] == ["unencodable"] * (not fits)
        assert report.values == (VALUES if fits else b"[null]")

    run(scenario())


def test_cores_wait_until_values_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        desk = Desk(monkeypatch)
        desk.add()
        desk.add()
        for _ in range(3):
            desk.values.hold_back()
        desk.values.on_core_lost()
        await asyncio.sleep(1)
        assert desk.idle == 0
        desk.arrives.set()
        await desk.background.finish()
        assert desk.idle == 2, "the core that was lost was one of those that waited"
        desk.values.on_core_lost()
        assert desk.idle == 1

    run(scenario())
