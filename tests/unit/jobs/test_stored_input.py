"""A job's input, read back from its stream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap.dispatch.sources import ELEMENT_BYTES
from jetmap.jobs.record import InputPart, Record
from jetmap.jobs.store import StoredMessage
from jetmap.jobs.stored_input import AHEAD_BYTES, StoredInput
from jetmap.wire import arrays
from jetmap.wire.messages import encode
from virtual_time import run
from waiting import turns, wait_until

pytestmark = pytest.mark.anyio

EACH = 1000


class Parts:
    """A store with a job of many small items."""

    pool = "default"

    def __init__(self, parts: int) -> None:
        items = arrays.join([b"7"] * EACH, "json")
        self.parts = [encode(InputPart(n * EACH, EACH, items)) for n in range(parts)]
        self.read = 0

    async def fetch(
        self, kind: str, subject: str, after: int, **limits: Any
    ) -> list[StoredMessage]:
        self.read = min(after + 8, len(self.parts))
        return [StoredMessage(seq + 1, self.parts[seq]) for seq in range(after, self.read)]


async def test_what_is_read_ahead_is_bounded_in_memory() -> None:
    """However short the items: each is an object."""
    store = Parts(1000)
    total = len(store.parts) * EACH
    record = Record(id="j", function="f", format="json", total=total)
    source = StoredInput(store, record)  # type: ignore[arg-type]
    try:
        taken = 0
        while taken < total:
            await turns(3)
            ahead = store.read * EACH - taken
            assert ahead * ELEMENT_BYTES <= AHEAD_BYTES + 9 * EACH * (ELEMENT_BYTES + 1)
            await wait_until(lambda: source.has_items, "more is read")
            found = source.take(700, 1 << 20)
            assert found is not None and found.start == taken
            taken += found.count
        assert taken == total and not source.has_items
    finally:
        await source.aclose()


async def test_items_that_were_tried_wait_apart_from_the_others() -> None:
    """Each once, alone, with its tries; those with an outcome not at all."""
    store = Parts(1)
    record = Record(id="j", function="f", format="json", total=EACH)
    tries = {0: (1, 0.01), 500: (3, 0.0), 501: (1, 0.02), EACH - 1: (2, 0.0), 7: (1, 0.0)}
    source = StoredInput(store, record, [(5, 10)], tries)  # type: ignore[arg-type]
    woken = asyncio.Event()
    source.wake = woken.set
    found: dict[int, int] = {}
    try:
        while len(found) < EACH - 5:
            await woken.wait()
            woken.clear()
            while (piece := source.take(700, 1 << 20)) is not None:
                assert piece.tries == 0 or piece.count == 1
                new = dict.fromkeys(range(piece.start, piece.start + piece.count), piece.tries)
                assert not found.keys() & new.keys()
                found |= new
        assert {index: count for index, count in found.items() if count} == {
            0: 1, 500: 3, 501: 1, EACH - 1: 2
        }  # fmt: skip
        assert source.total == EACH and not source.has_items
    finally:
        await source.aclose()


async def test_closing_ends_the_waits() -> None:
    record = Record(id="j", function="f", format="json", total=EACH)
    source = StoredInput(Parts(1), record, (), {3: (1, 3600.0)})  # type: ignore[arg-type]
    await wait_until(lambda: source.has_items, "it is read")
    await source.aclose()
    assert source.take(EACH, 1 << 20) is not None


def test_an_earlier_item_may_be_the_last_to_be_taken() -> None:
    """Its map must not take the number of items for a sign that each of them was taken."""
    run(_take_an_earlier_item_last())  # A slow machine would find both waits over.


async def _take_an_earlier_item_last() -> None:
    record = Record(id="j", function="f", format="json", total=EACH)
    tries = {3: (1, 0.02), EACH - 1: (1, 0.0)}
    source = StoredInput(Parts(1), record, (), tries)  # type: ignore[arg-type]
    order: list[int] = []
    try:
        while len(order) < EACH:
            await wait_until(lambda: source.has_items, "there are items")
            assert source.total is None
            piece = source.take(EACH, 1 << 20)
            assert piece is not None
            order += range(piece.start, piece.start + piece.count)
        assert order[-1] == 3 and source.total == EACH
    finally:
        await source.aclose()
