"""A job's input, read back from its stream."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap.dispatch.sources import ELEMENT_BYTES
from jetmap.jobs.record import InputPart, Record
from jetmap.jobs.store import StoredMessage
from jetmap.jobs.stored_input import AHEAD_BYTES, StoredInput
from jetmap.wire import arrays
from jetmap.wire.messages import encode
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
