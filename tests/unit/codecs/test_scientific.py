"""NumPy's and pandas' values without an annotation."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from jetmap.codecs.walk import decode_plainly, encode_walked, restore, scientific_kind, tag

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ext_hook=restore).decode


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.asfortranarray(np.eye(3)),
        np.array([("a", 1)], dtype=[("name", "U3"), ("n", "<i4")]),
        np.zeros((0, 2)),
    ],
    ids=["integers", "fortran", "record", "empty"],
)
def test_arrays_keep_dtype_shape_and_order(value: Any) -> None:
    found = _decode(encode_walked(tag(value), _encode))
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.flags.f_contiguous == value.flags.f_contiguous
    assert np.array_equal(found, value) and found.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.1),
        np.int8(-7),
        np.datetime64(1, "ns"),
        np.str_("x"),
        np.bytes_(b"x"),
        pd.Timestamp(1, tz="Europe/Berlin"),
        pd.Timedelta(1),
    ],
    ids=repr,
)
def test_scalars_keep_their_type(value: Any) -> None:
    found = _decode(encode_walked(tag(value), _encode))
    assert (type(found), found) == (type(value), value)


def test_values_that_stand_for_none() -> None:
    for value in (pd.NaT, pd.NA):
        assert _decode(encode_walked(tag(value), _encode)) is value
        assert decode_plainly(encode_walked(tag(value), _encode)) is None


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.ma.masked_array([1], [True]),
        pd.Period("2020"),
    ],
    ids=["objects", "masked", "period"],
)
def test_others_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot travel"):
        tag(value)


def test_values_of_other_packages() -> None:
    assert scientific_kind(object()) is None
