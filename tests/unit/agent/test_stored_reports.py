"""Outcomes of jobs that the broker refuses, or says nothing of, are held back."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from jetmap.agent.stored_reports import OVERDUE, PARTS_OUT, SILENT_SENDS, StoredReports
from jetmap.errors import BrokerUnreachable
from jetmap.wire import subjects
from jetmap.wire.messages import PART_BYTES, Report, encode

pytestmark = pytest.mark.anyio

_report = msgspec.msgpack.Decoder(Report).decode

FULL = b'{"error": {"code": 503, "err_code": 10023, "description": "insufficient resources"}}'


class Broker:
    """Keeps what is published, and answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.data: dict[str, bytes] = {}
        self.room = 1 << 20
        self.spare: int | None = 16  # Messages of filler; None: not for this account.
        self.answered: Callable[[Any], Awaitable[None]]
        self.reconnected: Callable[[], Awaitable[None]]

    async def subscribe(self, subject: str, callback: Any, *, direct: bool) -> Any:
        self.answered = callback
        return SimpleNamespace()

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        self.reconnected = callback

    async def publish(self, subject: str, data: bytes, reply: str) -> None:
        self.sent.append(reply)
        self.data[reply] = data

    async def api(self, subject: str) -> dict[str, Any]:
        if self.spare is None:
            raise BrokerUnreachable("not allowed")
        return {"state": {"messages": self.spare}}

    async def answer(self, reply: str, data: bytes) -> None:
        await self.answered(SimpleNamespace(subject=reply, data=data))

    def taken(self) -> list[str]:
        sent, self.sent = self.sent, []
        return sent


class Agent:
    def __init__(self) -> None:
        self.broker = Broker()
        self.told: list[Report] = []
        reports: Any = SimpleNamespace(add=self._tell, flush=self._flush)
        self.storing = StoredReports(cast(Any, self.broker), "default", "in", reports)
        self.now = time.monotonic()

    async def _tell(self, held: Any, report: bytes) -> None:
        self.told.append(msgspec.msgpack.decode(report, type=Report))

    async def _flush(self) -> None: ...

    async def start(self, reports: int) -> list[Any]:
        await self.storing.start()
        job = subjects.job_map("j", 1)
        helds = []
        for start in range(reports):
            held = SimpleNamespace(unsent=0, unwanted=False, head=SimpleNamespace(map=job))
            report = Report(job, 0, 0, start, 1, b"[1]", [], 0.0)
            await self.storing.add(cast(Any, held), encode(report))
            helds.append(held)
        return helds

    async def beat(self) -> list[str]:
        """Return what is sent again once everything is overdue."""
        self.now += OVERDUE + 1
        await self.storing.store_overdue(self.now)
        return self.broker.taken()


async def test_what_is_stored_is_told_once() -> None:
    agent = Agent()
    (held,) = await agent.start(1)
    (reply,) = agent.broker.taken()
    for _ in range(2):
        await agent.broker.answer(reply, b'{"seq": 7}')
    assert [(told.stored, told.size, told.values) for told in agent.told] == [(7, 3, b"")]
    assert held.unsent == 0 and await agent.beat() == []


async def test_one_report_tries_for_room() -> None:
    agent = Agent()
    await agent.start(5)
    sent = agent.broker.taken()
    assert len(sent) == 5
    for reply in sent:
        await agent.broker.answer(reply, FULL)
    for _ in range(3):
        (tried,) = await agent.beat()
        await agent.broker.answer(tried, FULL)
    # Records need the room that is kept for them, also while it is filled again.
    for pieces in (0, 1, 15):
        agent.broker.spare = pieces
        assert await agent.beat() == [], "not even one tries"
    agent.broker.spare = 16
    (tried,) = await agent.beat()
    await agent.broker.answer(tried, b'{"seq": 1}')
    assert sorted(await agent.beat()) == sorted(set(sent) - {tried})


async def test_one_report_tries_a_full_broker_that_was_restarted() -> None:
    agent = Agent()
    await agent.start(5)
    for reply in agent.broker.taken():
        await agent.broker.answer(reply, FULL)
    agent.broker.spare = 15
    await agent.broker.reconnected()
    assert await agent.beat() == [], "a record needs the room"
    agent.broker.spare = 16
    (tried,) = await agent.beat()
    await agent.broker.answer(tried, b'{"seq": 1}')
    assert len(await agent.beat()) == 4


async def test_an_account_that_may_not_ask_for_the_filler_tries() -> None:
    agent = Agent()
    await agent.start(2)
    agent.broker.spare = None
    for reply in agent.broker.taken():
        await agent.broker.answer(reply, FULL)
    assert len(await agent.beat()) == 1


async def test_one_report_tries_a_broker_that_says_nothing() -> None:
    """A stream that a full disk has stopped behaves like this."""
    agent = Agent()
    await agent.start(5)
    assert len(agent.broker.taken()) == 5
    for _ in range(SILENT_SENDS - 1):
        assert len(await agent.beat()) == 5
    for _ in range(3):
        assert len(await agent.beat()) == 1
    # What comes now waits, too; all of it goes when the broker is back.
    await agent.start(1)
    assert agent.broker.taken() == []
    await agent.broker.reconnected()
    assert len(await agent.beat()) == 6


async def test_what_is_not_wanted_any_more_is_dropped() -> None:
    agent = Agent()
    helds = await agent.start(2)
    agent.broker.taken()
    helds[0].unwanted = True
    (sent,) = await agent.beat()
    await agent.broker.answer(sent, b'{"seq": 1}')
    assert len(agent.told) == 1


async def test_a_refusal_of_another_kind_holds_nothing_back() -> None:
    agent = Agent()
    await agent.start(3)
    other = b'{"error": {"code": 503, "err_code": 10008, "description": "no leader"}}'
    for reply in agent.broker.taken():
        await agent.broker.answer(reply, other)
    assert len(await agent.beat()) == 3


async def test_large_values_are_stored_in_parts_before_their_report() -> None:
    agent = Agent()
    await agent.storing.start()
    agent.broker.room = 100
    values, job = bytes(range(256)) * 10, subjects.job_map("j", 1)
    held: Any = SimpleNamespace(unsent=0, unwanted=False, head=SimpleNamespace(map=job))
    report = Report(job, 4, 1, 7, 1, b"", [], 0.5, size=len(values))
    await agent.storing.add_large(held, encode(report), values)
    seq, stored = 0, dict[int, Report]()
    while replies := agent.broker.taken():
        assert len(replies) <= PARTS_OUT
        # In any order, each twice; the answer to the first one is lost.
        for reply in [*replies[::-1], *replies]:
            if seq or reply != replies[-1]:
                seq += 1
                stored.setdefault(seq, _report(agent.broker.data[reply]))
                await agent.broker.answer(reply, b'{"seq": %d}' % seq)
            else:
                seq += 1
        assert held.unsent == 1 or agent.told
    parts = [part for part in stored.values() if not part.count]
    whole = next(report for report in stored.values() if report.count)
    assert b"".join(stored[at].values for at in whole.parts) == values
    assert max(len(part.values) for part in parts) == 100
    assert (whole.number, whole.start, whole.size, whole.values) == (4, 7, 2560, b"")
    [told] = agent.told
    assert told.stored and (told.size, told.values, told.parts) == (2560, b"", [])
    assert held.unsent == 0


async def test_parts_that_nobody_answers_for_are_stored_again() -> None:
    agent = Agent()
    await agent.storing.start()
    job = subjects.job_map("j", 1)
    held: Any = SimpleNamespace(unsent=0, unwanted=False, head=SimpleNamespace(map=job))
    report = encode(Report(job, 4, 1, 7, 1, b"", [], 0.5))
    await agent.storing.add_large(held, report, bytes(3 * PART_BYTES))
    first = agent.broker.taken()
    assert len(first) == 3 and await agent.beat() == first
    held.unwanted = True
    for reply in first:
        await agent.broker.answer(reply, b'{"seq": 1}')
    assert agent.broker.taken() == [] and not agent.told
