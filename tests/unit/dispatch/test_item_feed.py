"""Items that arrive while a map runs."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.flight import Piece
from jetmap.dispatch.item_feed import ItemFeed
from jetmap.dispatch.sources import ELEMENT_BYTES
from jetmap.wire.messages import Format
from waiting import turns

quick = examples(100)

FORMATS: list[Format] = ["json", "msgpack"]

fine = st.integers(-1000, 1000) | st.text(max_size=150)
counts = st.lists(st.integers(1, 40), min_size=1, max_size=60)


class Feeding(Exception):
    """A test's own."""


@pytest.mark.parametrize("format", FORMATS)
@quick
@given(
    st.lists(st.lists(fine, max_size=8), max_size=12),
    counts,
    st.integers(2, 400),
    st.integers(1, 600),
)
def test_a_feed_passes_everything_on_and_holds_its_limit(
    format: Format,
    puts: list[list[Any]],
    counts: list[int],
    max_bytes: int,
    limit: int,
) -> None:
    codec = msgspec.json if format == "json" else msgspec.msgpack
    elements = [[codec.encode(item) for item in put] for put in puts]
    seen: list[Any] = []

    def take(feed: ItemFeed, count: int) -> Piece | None:
        if (taken := feed.take(count, max_bytes)) is not None:
            assert 1 <= taken.count <= count
            assert taken.count == 1 or len(taken.items) <= max_bytes
            seen.extend(codec.decode(taken.items))
        return taken

    async def run() -> None:
        feed = ItemFeed(format, limit_bytes=limit)
        woken = 0

        def wake() -> None:
            nonlocal woken
            woken += 1

        feed.wake = wake

        async def fill() -> None:
            for put in elements:
                await feed.put(put)
            feed.close()

        filling = asyncio.create_task(fill())
        for count in itertools.cycle(counts):
            await turns()
            assert feed.total is None or feed.total == sum(map(len, puts))
            if take(feed, count) is None and filling.done():
                break
        await filling
        assert woken >= len(puts) + 1
        assert not feed.has_items and feed.remaining == 0 and feed.total == len(seen)

    asyncio.run(run())
    assert seen == [item for put in puts for item in put]


@pytest.mark.anyio
async def test_put_waits_while_the_feed_is_full() -> None:
    feed = ItemFeed("json", limit_bytes=10 + 2 * ELEMENT_BYTES)
    await feed.put([b"12345"])
    waiting = asyncio.create_task(feed.put([b"123456"]))
    await turns()
    assert not waiting.done()
    feed.take(1, 100)
    await turns()
    assert not waiting.done(), "half of the limit must be free, so that puts are not small"
    feed.take(1, 100)
    await waiting
    assert feed.total is None

    waiting = asyncio.create_task(feed.put([b"x" * 20] * 3))
    await turns()
    feed.fail(Feeding())
    await waiting
    assert isinstance(feed.error, Feeding)
