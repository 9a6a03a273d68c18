"""UTF-8, depth and positions of raw JSON, against plain and slow ways to find them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetmap.wire.check import deeper_than, depth_error, not_utf8, syntax, too_deep, utf8_error

nested = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\a\u00e9'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"\\'), inner, max_size=3)
    ),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(nested, st.integers(0, 6), st.booleans())
def test_depth_is_that_of_the_decoded_value(value: Any, limit: int, ascii: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii).encode()
    assert deeper_than(data, limit) == (depth(value) > limit)


@pytest.mark.parametrize("limit", [1, 15, 16, 17, 500])
def test_depth_beyond_the_rounds_is_counted_too(limit: int) -> None:
    for levels in (limit, limit + 1):
        data = b"[" * levels + b"]" * levels
        assert deeper_than(data, limit) == (levels > limit)
    assert depth_error(data, limit) == limit


def test_brackets_in_strings_are_no_depth() -> None:
    assert depth_error(rb'["[[\"[[", {"}": [1]}]', 2) == rb'["[[\"[[", {"}": [1]}]'.index(b"[1")


@given(st.binary(max_size=40))
def test_the_first_byte_that_is_not_utf8(data: bytes) -> None:
    found = utf8_error(data)
    if found is None:
        data.decode()
    else:
        data[:found].decode()
        with pytest.raises(UnicodeDecodeError):
            data.decode()


def test_errors_give_a_byte_or_a_line_and_a_byte() -> None:
    assert "nested deeper than 3 levels at byte 7" in str(too_deep(7, 3))
    assert "in line 2, at byte 7" in str(not_utf8(7, 2))
    assert (not_utf8(7, 2).position, not_utf8(7, 2).line) == (7, 2)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"[1,]", "at byte 13"),
        (b"[1] 2", "at byte 14"),
        (b"[1,", "it ends too early at byte 13"),
        (rb'["\ud83d', "half of a surrogate pair"),
    ],
)
def test_syntax_errors_of_a_decoder_count_from_the_offset(data: bytes, text: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(data)
    assert text in str(syntax(caught.value, data, 10))
