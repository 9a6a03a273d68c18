"""Runs: many elements in one pickle, split and joined without loading it."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.wire import arrays, runs

quick = examples(100)


def loaded(array: bytes) -> list[Any]:
    """Load the elements of an array."""
    found: list[Any] = []
    for element in msgspec.msgpack.decode(array):
        if isinstance(element, msgspec.msgpack.Ext):
            assert element.code == runs.CODE
            run = runs.read(memoryview(element.data))
            found += pickle.loads(run.pickle, buffers=run.buffers)[run.start : run.stop]
        else:
            found.append(element)
    return found


def written(parts: list[list[int] | None]) -> tuple[bytes, list[Any]]:
    """Write an array of runs and nulls; return the items, too."""
    elements: list[bytes] = []
    items: list[Any] = []
    for part in parts:
        if part is None:
            elements.append(b"\xc0")
            items.append(None)
        else:
            elements.append(runs.write(0, len(part), pickle.dumps(part), []))
            items += part
    return arrays.array_header(len(elements)) + b"".join(elements), items


parts = st.lists(st.none() | st.lists(st.integers(0, 300), min_size=1, max_size=9), max_size=9)


@quick
@given(parts, st.data())
def test_any_split_keeps_the_elements(parts: list[list[int] | None], data: st.DataObject) -> None:
    array, items = written(parts)
    elements = arrays.split(array, "pickle")
    assert len(elements) == len(items)
    assert loaded(arrays.join(elements, "pickle")) == items
    cuts = sorted(data.draw(st.lists(st.integers(0, len(items)), max_size=4)))
    ranges = list(zip([0, *cuts], [*cuts, len(items)], strict=True))
    cut = arrays.select(array, ranges, "pickle")
    assert [item for part in cut for item in loaded(part)] == items
    # Each is whole by itself, and parts of parts can be cut again.
    for part, (a, b) in zip(cut, ranges, strict=True):
        again = arrays.split(part, "pickle")
        assert loaded(arrays.join([bytes(each) for each in again], "pickle")) == items[a:b]


def test_neighbours_share_their_pickle() -> None:
    array, _ = written([list(range(200))])
    assert arrays.join(arrays.split(array, "pickle"), "pickle") == array
    few = arrays.select(array, [(3, 5), (5, 200)], "pickle")
    assert sum(map(len, few)) < 2 * len(array) + 10


def test_buffers_of_any_size() -> None:
    for size in (0, 255, 256, 65_535, 65_536, 200_000):
        element = runs.write(0, 1, b"p" * size, [memoryview(bytes(size))])
        run = runs.read(memoryview(msgspec.msgpack.decode(element).data))
        assert (len(run.pickle), [len(buffer) for buffer in run.buffers]) == (size, [size])
    run = runs.read(memoryview(msgspec.msgpack.decode(runs.write(0, 1, b"", [])).data))
    assert run.buffers == []


def test_other_extensions_are_no_runs() -> None:
    other = msgspec.msgpack.encode([msgspec.msgpack.Ext(74, b"abc"), 5])
    assert arrays.join(arrays.split(other, "pickle"), "pickle") == other
