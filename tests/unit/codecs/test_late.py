"""Items that are decoded later: none is loaded before it is asked for, and errors are its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from jetmap.codecs.late import delayed
from jetmap.codecs.native import NativeCodec

if TYPE_CHECKING:
    from jetmap.codecs import Codec


def test_each_item_is_decoded_when_it_is_asked_for_and_fails_alone() -> None:
    codec = cast("Codec", NativeCodec(int))
    data = msgspec.msgpack.encode([1, "two", 3])
    first, second, third = delayed(codec, data, "msgpack")
    assert third.load() == 3 and first.load() == 1
    with pytest.raises(ValueError, match="int"):
        second.load()
    assert first.load() == 1, "again"


def test_items_in_json_are_delayed_too() -> None:
    codec = cast("Codec", NativeCodec(list[int]))
    assert [item.load() for item in delayed(codec, b"[[1, 2], []]", "json")] == [[1, 2], []]
    assert delayed(codec, b"[]", "json") == []
