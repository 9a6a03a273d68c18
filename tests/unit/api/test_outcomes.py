"""Outcomes translated between JSON and MessagePack."""

from __future__ import annotations

import msgspec
import pytest

from jetmap.wire.messages import ErrorRecord
from jetmap_api.outcomes import Translated, translate


def packed(*values: object, start: int = 0, errors: tuple[ErrorRecord, ...] = ()) -> Translated:
    return Translated(start, len(values), msgspec.msgpack.encode(list(values)), list(errors))


def test_values_keep_their_order_and_errors() -> None:
    error = ErrorRecord(6, "raised", "ValueError", "no")
    found = translate(packed(1, None, "ü", start=5, errors=(error,)), "msgpack", "json")
    assert (found.start, found.count, found.values) == (5, 3, '[1,null,"ü"]'.encode())
    assert list(found.errors) == [error]
    back = translate(found, "json", "msgpack")
    assert msgspec.msgpack.decode(back.values) == [1, None, "ü"]


@pytest.mark.parametrize("value", [float("nan"), [1.0, {"a": float("inf")}]])
def test_a_number_that_json_lacks_is_its_items_error(value: object) -> None:
    found = translate(packed(1, value, start=3), "msgpack", "json")
    assert found.values == b"[1,null]"
    (error,) = found.errors
    assert (error.index, error.kind, error.type) == (4, "unencodable", "ValueError")
    assert "application/msgpack" in error.message


def test_bytes_become_base64() -> None:
    assert translate(packed(b"\x00"), "msgpack", "json").values == b'["AA=="]'


def test_an_integer_that_messagepack_lacks_is_its_items_error() -> None:
    found = translate(Translated(5, 3, msgspec.json.encode([1, 2**70, "x"]), []), "json", "msgpack")
    assert msgspec.msgpack.decode(found.values) == [1, None, "x"]
    assert [(error.index, error.kind) for error in found.errors] == [(6, "unencodable")]
