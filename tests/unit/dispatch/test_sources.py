"""A list that is encoded already."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.sources import RawItems
from jetmap.wire.messages import Format


@pytest.mark.parametrize("format", ["json", "msgpack"])
@examples(100)
@given(
    st.lists(st.integers(-1000, 1000) | st.text(max_size=150), max_size=60),
    st.integers(1, 40),
    st.integers(2, 400),
)
def test_items_leave_once_in_order_in_pieces_that_fit(
    format: Format, items: list[Any], count: int, max_bytes: int
) -> None:
    codec = msgspec.json if format == "json" else msgspec.msgpack
    source = RawItems([codec.encode(item) for item in items], format)
    seen: list[Any] = []
    assert source.total == source.remaining == len(items)
    while (piece := source.take(count, max_bytes)) is not None:
        assert piece.start == len(seen) and 1 <= piece.count <= count
        assert piece.count == 1 or len(piece.items) <= max_bytes
        seen += codec.decode(piece.items)
        assert source.remaining == len(items) - len(seen)
    assert seen == items and not source.has_items
