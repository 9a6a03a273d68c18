"""Encoded arrays are taken apart and joined as if they had been decoded."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.wire import arrays
from jetmap.wire.messages import Format

quick = examples(50)

FORMATS: list[Format] = ["json", "msgpack"]
both_formats = pytest.mark.parametrize("format", FORMATS)

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
lists = st.lists(values, max_size=40)


def encode(value: object, format: Format) -> bytes:
    return msgspec.json.encode(value) if format == "json" else msgspec.msgpack.encode(value)


def decode(data: bytes, format: Format) -> Any:
    return msgspec.json.decode(data) if format == "json" else msgspec.msgpack.decode(data)


@both_formats
@quick
@given(lists)
def test_split_and_join_are_inverse(format: Format, items: list[Any]) -> None:
    elements = arrays.split(encode(items, format), format)

    assert [decode(bytes(element), format) for element in elements] == items
    assert arrays.join(elements, format) == encode(items, format)
    assert arrays.join([bytes(element) for element in elements], format) == encode(items, format)


@both_formats
@quick
@given(st.lists(lists, max_size=6))
def test_concatenated_arrays_hold_all_their_elements_in_order(
    format: Format, parts: list[list[Any]]
) -> None:
    whole = [item for part in parts for item in part]
    joined = arrays.concatenate([encode(part, format) for part in parts], len(whole), format)

    assert joined == encode(whole, format)


@both_formats
@quick
@given(lists, st.data())
def test_select_takes_the_same_ranges_as_slices(
    format: Format, items: list[Any], data: st.DataObject
) -> None:
    bounds = st.integers(0, len(items))
    ranges = [(min(r), max(r)) for r in data.draw(st.lists(st.tuples(bounds, bounds), max_size=5))]
    parts = arrays.select(encode(items, format), ranges, format)

    assert parts == [encode(items[a:b], format) for a, b in ranges]


@both_formats
@quick
@given(lists, st.lists(st.integers(0, 40), max_size=5))
def test_an_array_cut_anywhere_is_whole_when_put_together(
    format: Format, items: list[Any], cuts: list[int]
) -> None:
    bounds = [0, *sorted(min(cut, len(items)) for cut in cuts), len(items)]
    parts = arrays.select(encode(items, format), pairwise(bounds), format)

    assert arrays.concatenate(parts, len(items), format) == encode(items, format)


@both_formats
@pytest.mark.parametrize("count", [0, 1, 15, 16, 255, 65_535, 65_536, 70_000])
def test_every_size_of_header(format: Format, count: int) -> None:
    nulls = arrays.nulls(count, format)

    assert nulls == encode([None] * count, format)
    assert arrays.concatenate([nulls], count, format) == nulls
    assert arrays.concatenate([nulls, arrays.nulls(3, format)], count + 3, format) == encode(
        [None] * (count + 3), format
    )
    assert len(arrays.split(nulls, format)) == count


@quick
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bytes_pass_through_messagepack(items: list[bytes]) -> None:
    elements = arrays.split(encode(items, "msgpack"), "msgpack")

    assert decode(arrays.join(elements, "msgpack"), "msgpack") == items


@quick
@given(st.lists(st.integers() | st.text(), max_size=10), st.sampled_from(["", " ", "\n\t", "\r "]))
def test_white_space_around_json_elements_changes_nothing(items: list[Any], space: str) -> None:
    spaced = ",".join(f"{space}{msgspec.json.encode(item).decode()}{space}" for item in items)
    array = f"{space}[{space}{spaced}{space}]{space}".encode()
    joined = arrays.join(arrays.split(array, "json"), "json")

    assert decode(joined, "json") == items
    assert decode(arrays.concatenate([joined, joined], 2 * len(items), "json"), "json") == 2 * items
