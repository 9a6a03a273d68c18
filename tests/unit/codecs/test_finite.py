"""NaN and infinities in JSON."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from jetmap.codecs.finite import refuse_nan


def encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


@pytest.mark.parametrize("value", [None, [None], {"a": None, "b": 1.5}, "null", 1.0])
def test_a_null_of_the_value_passes(value: Any) -> None:
    refuse_nan(encoded(value), value, None)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (math.nan, "NaN"),
        ([1, {"a": (math.inf,)}], "Infinity"),
        ({"x": {-math.inf}}, "-Infinity"),
    ],
)
def test_others_are_refused_by_name(value: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be written as JSON"):
        refuse_nan(encoded(value), value, None)
