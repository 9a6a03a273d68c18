"""Arrays of bytes that are encoded without a copy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.wire.scattered import LEAST, scattered


@examples(50)
@given(st.lists(st.sampled_from([LEAST, LEAST + 1, 65_535, 65_536, 200_000]), min_size=1))
def test_the_parts_are_what_an_encoder_writes(sizes: list[int]) -> None:
    values = [bytes(size) for size in sizes[:20]]
    found, expected = scattered(values), msgspec.msgpack.encode(values)
    assert found is not None
    assert bytes(found) == b"".join(found) == expected and len(found) == len(expected)
    assert {id(value) for value in values} <= {id(part) for part in found}, "none is a copy"


def test_small_values_among_large_ones_are_encoded_with_them() -> None:
    values = [bytes(3 * LEAST), b"", b"x"]
    found = scattered(values)
    assert found is not None and bytes(found) == msgspec.msgpack.encode(values)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [bytes(LEAST - 1)],
        [bytes(LEAST), b""],
        ["x" * LEAST],
        [bytes(2 * LEAST), None],
        [type("Bytes", (bytes,), {})(LEAST)],
    ],
)
def test_other_values_are_left_to_an_encoder(values: list[Any]) -> None:
    assert scattered(values) is None
