"""Codecs that use msgspec."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from jetmap.codecs import Parameter
from jetmap.codecs.native import (
    NativeCodec,
    NativeKwargs,
    check_names,
    encode_other,
    inlined,
)


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_lists_travel_in_one_call(format: Any) -> None:
    codec = NativeCodec(list[int])
    values = [[1], [2, 3]]
    assert codec.decode_list(codec.encode_list(values, format), format) == values
    assert codec.decode(codec.encode([4], format), format) == [4]


def test_an_integer_that_cannot_travel() -> None:
    with pytest.raises(OverflowError, match="over 64 bits travels only where there is no annot"):
        NativeCodec(int).encode(2**64, "msgpack")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.datetime64("2026-01-02T03:04:05"), dt.datetime(2026, 1, 2, 3, 4, 5)),
        (pd.Timedelta(seconds=1), dt.timedelta(seconds=1)),
        (type("Name", (str,), {})("x"), "x"),
    ],
)
def test_values_with_a_builtin_equal(value: Any, plain: Any) -> None:
    found = encode_other(value)
    assert (type(found), found) == (type(plain), plain)


@pytest.mark.parametrize(
    "value", [np.datetime64("2026-01-01T00:00:00.000000001"), pd.Timestamp(1), pd.NaT, object()]
)
def test_values_that_would_change(value: Any) -> None:
    with pytest.raises(TypeError):
        encode_other(value)


def test_keyword_parameters_are_checked_as_in_a_call() -> None:
    parameters = [Parameter("base", int), Parameter("exponent", int, True, 2)]
    codec = NativeKwargs("power", parameters)
    assert codec.decode(b'{"base": 3}', "json") == {"base": 3}
    assert codec.schema()["properties"]["exponent"]["default"] == 2
    check_names("power", parameters, {"base": 3})
    for kwargs, said in (
        ({}, "misses its keyword argument 'base'"),
        ({"base": 1, "n": 2}, "unexpected keyword argument 'n'"),
    ):
        with pytest.raises(TypeError, match=said):
            check_names("power", parameters, kwargs)


def test_a_schema_that_is_one_definition_is_that_definition() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}, "B": {}}}
    assert inlined(schema) == {"type": "object", "$defs": {"B": {}}}
    assert inlined({"type": "integer"}) == {"type": "integer"}


@pytest.mark.parametrize("type", [bytes, str, list[int], dict[str, float | None], Any, bytearray])
@pytest.mark.parametrize("format", ["json", "msgpack", "python"])
def test_values_of_builtins_are_decoded_from_memory_that_changes(type: Any, format: Any) -> None:
    value = {list[int]: [1], dict[str, float | None]: {"a": 0.5}, str: "x", Any: [None, {"a": 1}]}
    codec, values = NativeCodec(type), [value.get(type, b"x" * 99)]
    memory = bytearray(codec.encode_list(values, format))
    found = codec.decode_owned(memoryview(memory), format)
    memory[:] = bytes(len(memory))
    assert found == values


def test_values_that_share_memory_or_run_code_are_left_to_a_copy() -> None:
    def owned(type: Any, value: Any, format: Any = "msgpack") -> Any:
        codec = NativeCodec(type)
        return codec.decode_owned(memoryview(codec.encode_list([value], format)), format)

    assert owned(memoryview, b"x") is None and owned(dict[str, memoryview], {"a": b"x"}) is None
    assert owned(msgspec.Raw, msgspec.Raw(b"\x01")) is None
    assert owned(np.int64, np.int64(1)) is None, "its class is not of the standard library"
    assert owned(Any, (1, 2), "python") is None, "an extension, which a walk makes a tuple of"
    assert owned(Any, [1, 2], "python") == [[1, 2]]
