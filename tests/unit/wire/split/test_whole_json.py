"""A JSON array that is there as a whole."""

from __future__ import annotations

import pytest

from jetmap.errors import Malformed, TooLarge
from jetmap.settings import LimitSettings
from jetmap.wire.split.whole_json import split_array

LIMITS = LimitSettings(max_item_bytes=1000, max_depth=3)


def texts(array: bytes) -> list[bytes]:
    return [bytes(element) for element in split_array(array, LIMITS)]


def test_a_whole_array() -> None:
    assert texts(b' [1, "a,b", {"x": [2]} ] ') == [b"1", b'"a,b"', b'{"x": [2]}']
    assert texts(b"[]") == []
    assert texts(b"\xef\xbb\xbf[1]") == [b"1"], "a byte order mark is passed over"


@pytest.mark.parametrize(
    ("array", "text", "position"),
    [
        (b"{}", "is not an array", 0),
        (b" ", "is empty", 0),
        (b"[1,]", "trailing comma", 3),
        (b"\xef\xbb\xbf[1,]", "trailing comma", 6),
        (b"\xef\xbb\xbf\xef\xbb\xbf[1]", "invalid character", 3),
        (b"\xef\xbb\xbf", "is empty", 0),
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
