"""A JSON array: whole, and in pieces with large elements."""

from __future__ import annotations

import pytest

from jetmap.errors import Malformed
from jetmap.settings import LimitSettings
from jetmap.wire.split.json_array import JsonArray
from jetmap.wire.split.splitter import BOM
from raw_bodies import close, feed

LIMITS = LimitSettings(max_item_bytes=1000, max_depth=3)


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


@pytest.mark.parametrize("step", [1, 2, 100])
def test_a_byte_order_mark_is_passed_over_at_the_start_alone(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JsonArray, "step", 1)

    def split(body: bytes) -> list[bytes]:
        array, found = JsonArray(LIMITS), list[bytes]()
        for at in range(0, len(body), step):
            found += feed(array, body[at : at + step])
        return found + close(array)

    assert split(BOM + b" [1, 2]") == [b"1", b"2"]
    for body, position in ((BOM + BOM + b"[1]", 3), (BOM + b"[1,]", 6), (BOM + b"1", 3)):
        with pytest.raises(Malformed) as caught:
            split(body)
        assert caught.value.position == position, body
    for body in (BOM, BOM[:2], b"[1]" + BOM, b"[" + BOM + b"1]"):
        with pytest.raises(Malformed):
            split(body)


def test_bytes_after_the_end_are_refused() -> None:
    array = JsonArray(LIMITS)
    feed(array, b"[1]")
    feed(array, b" x")
    with pytest.raises(Malformed, match="trailing characters") as caught:
        close(array)
    assert caught.value.position == 4
