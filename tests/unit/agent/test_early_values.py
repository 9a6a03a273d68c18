"""Values that come before their report: each goes with one report, and memory is used again."""

from __future__ import annotations

from typing import Any, cast

from jetmap.agent.early_values import EarlyValues
from jetmap.agent.holdings import HeldChunk
from jetmap.wire.messages import ChunkHead


class CountedLoan:
    """A region that was lent. ends: how often it was given back."""

    def __init__(self) -> None:
        self.ends = 0

    def end(self) -> None:
        self.ends += 1


def chunk() -> HeldChunk:
    head = ChunkHead("m", 1, 1, "f", "json", 0, 1, "inbox", None, 1.0)
    return HeldChunk(head, [], b"", 0, 0, cast(Any, None))


def test_values_of_a_frame_go_with_the_next_report_only() -> None:
    early = EarlyValues()
    assert early.take(chunk()) == b""
    early.on_values(b"large")
    assert early.take(chunk()) == b"large"
    assert early.take(chunk()) == b""


def test_memory_is_lent_until_its_chunk_is_confirmed() -> None:
    early, loan, held = EarlyValues(), CountedLoan(), chunk()
    early.on_region(loan)
    assert early.take(held) == b"" and held.loans == [loan] and not loan.ends
    early.take(held)
    assert held.loans == [loan], "the next report has its own"


def test_memory_of_a_report_that_nobody_wants_is_given_back_at_once() -> None:
    early, loan = EarlyValues(), CountedLoan()
    early.on_region(loan)
    early.take(None)
    early.take(None)
    assert loan.ends == 1
