"""A JSON array: whole, and in pieces with large elements."""

from __future__ import annotations

import pytest

from jetmap.errors import Malformed
from jetmap.settings import LimitSettings
from jetmap.wire.split.json_array import JsonArray
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


def test_bytes_after_the_end_are_refused() -> None:
    array = JsonArray(LIMITS)
    feed(array, b"[1]")
    feed(array, b" x")
    with pytest.raises(Malformed, match="trailing characters") as caught:
        close(array)
    assert caught.value.position == 4
