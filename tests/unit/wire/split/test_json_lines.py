"""JSON lines: empty ones, a byte order mark, the last without a newline; errors name the line."""

from __future__ import annotations

import pytest

from jetmap.errors import Malformed, TooLarge
from jetmap.settings import LimitSettings
from jetmap.wire.split.json_lines import JsonLines
from jetmap.wire.split.splitter import BOM
from raw_bodies import close, feed

SMALL = LimitSettings(max_item_bytes=10, max_depth=3)


def test_empty_lines_and_white_space_are_no_items() -> None:
    lines = JsonLines(SMALL)
    assert feed(lines, b"\r\n1\n\n \t\n 2 \r\n[3,") == [b"1", b"2"]
    assert feed(lines, b" 4]") == []
    assert close(lines) == [b"[3, 4]"]


def test_a_mark_is_only_at_the_start() -> None:
    assert close_all(BOM + b"1\n") == [b"1"]
    with pytest.raises(Malformed, match="line 2"):
        close_all(b"1\n" + BOM + b"2\n")


def close_all(data: bytes) -> list[bytes]:
    lines = JsonLines(SMALL)
    return feed(lines, data) + close(lines)


@pytest.mark.parametrize(
    ("data", "line", "position"),
    [
        (b"1\n2 3\n", 2, 2),
        (b"1\n\n  [1 2]\n", 3, 5),
        (b'1\n"\xff"\n', 2, 1),
        (b"1\n[[[[1]]]]\n", 2, 3),
        (b"1\n[", 2, 1),
    ],
)
def test_errors_name_line_and_byte(data: bytes, line: int, position: int) -> None:
    with pytest.raises(Malformed) as caught:
        close_all(data)
    assert (caught.value.line, caught.value.position) == (line, position)


def test_a_long_item_is_counted_from_the_start() -> None:
    with pytest.raises(TooLarge) as caught:
        close_all(b'1\n\n"0123456789"\n')
    assert caught.value.index == 1 and "line 3" in str(caught.value)
