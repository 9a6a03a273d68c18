"""A MessagePack array: an element is skipped once, however often bytes are added to it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jetmap.errors import Malformed, TooLarge
from jetmap.settings import LimitSettings
from jetmap.wire.split.msgpack_array import MsgpackArray
from raw_bodies import close, feed

LIMITS = LimitSettings(max_item_bytes=100_000, max_depth=3)
encode = msgspec.msgpack.encode


@pytest.fixture(autouse=True)
def _split_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MsgpackArray, "step", 1)


def test_elements_come_as_soon_as_they_are_complete() -> None:
    array = MsgpackArray(LIMITS)
    assert feed(array, b"\xdc\x00") == []
    assert feed(array, b"\x03\x01\xa3ab") == [b"\x01"]
    assert feed(array, b"c\x90") == [b"\xa3abc", b"\x90"]
    assert close(array) == []


def test_a_large_element_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unpacker is fed each byte once, so a large element costs no more than small ones."""
    body = encode([[1] * 50_000])
    array = MsgpackArray(LIMITS)
    fed = 0

    class Counting:
        def __init__(self, unpacker: Any) -> None:
            self._unpacker = unpacker
            self.skip, self.tell = unpacker.skip, unpacker.tell

        def feed(self, data: bytes) -> None:
            nonlocal fed
            fed += len(data)
            self._unpacker.feed(data)

    array._unpacker = Counting(array._unpacker)
    found = [
        element for at in range(0, len(body), 1000) for element in feed(array, body[at:][:1000])
    ]
    assert found + close(array) == [body[1:]]
    assert fed == len(body) - 1


@pytest.mark.parametrize(
    ("body", "text", "position"),
    [
        (b"", "is empty", 0),
        (b"\x01", "is not an array", 0),
        (b"\x92\x01", "ends too early", 2),
        (b"\x91\x01\x02", "trailing characters", 2),
        (b"\x92\x01\xa2a\xff", "not UTF-8", 4),
        (b"\x92\x01" + b"\x91" * 5 + b"\x01", "deeper than 3 levels", 5),
    ],
)
def test_errors_have_a_position(body: bytes, text: str, position: int) -> None:
    array = MsgpackArray(LIMITS)
    with pytest.raises(Malformed, match=text) as caught:
        feed(array, body)
        close(array)
    assert caught.value.position == position


def test_a_complete_element_that_is_too_large_is_named() -> None:
    array = MsgpackArray(LIMITS.replace(max_item_bytes=5))
    with pytest.raises(TooLarge) as caught:
        feed(array, b"\x92\x01\xa6abcdef")
    assert caught.value.index == 1
