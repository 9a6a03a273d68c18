"""A JSON array: whole, and in pieces with large elements."""

from __future__ import annotations

import pytest

from jetmap.errors import Malformed, TooLarge
from jetmap.settings import LimitSettings
from jetmap.wire.split.json_array import JsonArray, split_array
from raw_bodies import close, feed

LIMITS = LimitSettings(max_item_bytes=1000, max_depth=3)


def texts(array: bytes) -> list[bytes]:
    return [bytes(element) for element in split_array(array, LIMITS)]


def test_a_whole_array() -> None:
    assert texts(b' [1, "a,b", {"x": [2]} ] ') == [b"1", b'"a,b"', b'{"x": [2]}']
    assert texts(b"[]") == []


@pytest.mark.parametrize(
    ("array", "text", "position"),
    [
        (b"{}", "is not an array", 0),
        (b" ", "is empty", 0),
        (b"[1,]", "trailing comma", 3),
        (b'["\xff"]', "not UTF-8", 2),
        (b"[[[[[1]]]]]", "deeper than 3 levels", 4),
    ],
)
def test_errors_have_a_position(array: bytes, text: str, position: int) -> None:
    with pytest.raises(Malformed, match=text) as caught:
        split_array(array, LIMITS)
    assert caught.value.position == position


def test_positions_and_indexes_begin_where_the_caller_says() -> None:
    with pytest.raises(Malformed) as malformed:
        split_array(b"[1,]", LIMITS, offset=100)
    assert malformed.value.position == 103
    with pytest.raises(TooLarge) as large:
        split_array(b'[1,"' + b"x" * 1000 + b'"]', LIMITS, first=7)
    assert large.value.index == 8


def test_pieces_cut_at_commas_outside_strings_and_brackets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(JsonArray, "step", 1)
    array = JsonArray(LIMITS)
    assert feed(
        array,
        b'[1, ["a],\\"',
    ) == [b"1"]
    assert feed(array, b'", 2], {"b": "]"') == [b'["a],\\"", 2]']
    assert feed(array, b"}, 3 ]  ") == [b'{"b": "]"}', b"3"]
    assert close(array) == []


def test_bytes_after_the_end_are_refused() -> None:
    array = JsonArray(LIMITS)
    feed(array, b"[1]")
    feed(array, b" x")
    with pytest.raises(Malformed, match="trailing characters") as caught:
        close(array)
    assert caught.value.position == 4
