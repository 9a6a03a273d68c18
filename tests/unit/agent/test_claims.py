"""Claims, and which answer counts for a chunk that was asked about."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

import virtual_time
from jetmap.agent.claims import Claims
from jetmap.agent.holdings import HeldChunk, Holdings, Lease
from jetmap.wire.messages import ChunkHead, ChunkKey, Claim, ClaimAnswer


class Desk:
    def __init__(self) -> None:
        self.sent: list[tuple[str, Claim]] = []
        self.held = Holdings()
        self.claims = Claims(self.held, "agent", "host", "mail", self._send)

    async def _send(self, subject: str, data: bytes) -> None:
        self.sent.append((subject, msgspec.msgpack.decode(data, type=Claim)))

    def hold(self, number: int, inbox: str = "i") -> HeldChunk:
        head = ChunkHead("m", number, 2, "f", "json", 0, 3, inbox, None, 0.0)
        held = HeldChunk(head, [Lease("ack", 1, 3)], b"", 0, 0, cast(Any, None))
        self.held.add(held, 0.0)
        return held


def ask(desk: Desk, chunks: list[HeldChunk], answers: list[Any]) -> dict[ChunkKey, bool | None]:
    """Ask about chunks; each answer is given a second after the one before."""

    async def scenario() -> dict[ChunkKey, bool | None]:
        asking = asyncio.ensure_future(desk.claims.ask(chunks, {}))
        for answer in answers:
            await asyncio.sleep(1)
            answer()
        return await asking

    return virtual_time.run(scenario())


def test_every_dispatcher_is_sent_its_own_chunks() -> None:
    desk = Desk()
    for number, inbox in ((1, "i"), (2, "j"), (3, "i")):
        desk.hold(number, inbox)
    virtual_time.run(desk.claims.send({("m", 3): 7}))
    found = {
        to: [(c.number, c.item, c.deliveries) for c in claim.chunks] for to, claim in desk.sent
    }
    assert found == {"i.claim": [(1, None, 3), (3, 7, 3)], "j.claim": [(2, None, 3)]}
    assert {(claim.agent, claim.host, claim.inbox) for _, claim in desk.sent} == {
        ("agent", "host", "mail")
    }


def test_an_answer_wants_all_that_it_does_not_refuse() -> None:
    desk = Desk()
    wanted, refused, silent = desk.hold(1), desk.hold(2), desk.hold(3, "j")

    def answer() -> None:
        desk.claims.refuse(refused)
        desk.claims.on_answer(ClaimAnswer("i", 1, [("m", 2)]))

    answers = ask(desk, [wanted, refused, silent], [answer])
    assert answers == {wanted.key: True, refused.key: False, silent.key: None}


@pytest.mark.parametrize("stale", [ClaimAnswer("i", 0, []), ClaimAnswer("j", 9, [])])
def test_an_earlier_answer_or_anothers_says_nothing(stale: ClaimAnswer) -> None:
    desk = Desk()
    held = desk.hold(1)
    assert ask(desk, [held], [lambda: desk.claims.on_answer(stale)]) == {held.key: None}
    # A later answer to a later claim counts.
    late = ClaimAnswer("i", 5, [])
    assert ask(desk, [held], [lambda: desk.claims.on_answer(late)]) == {held.key: True}
    desk.claims.refuse(held)  # Nobody asks any more.
