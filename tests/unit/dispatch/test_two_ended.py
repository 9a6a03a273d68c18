"""The last items of a list, which may be sent early: each item leaves once, whoever takes it."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.objects import Objects
from jetmap.dispatch.sources import RawItems
from simulation import Simulation

quick = examples(100)
counts = st.lists(st.integers(1, 20), min_size=1, max_size=60)
MAX_ITEM = 500


def encode(items: list[Any]) -> bytes:
    return msgspec.json.encode(items)


def source_of(kind: str, items: list[Any], *, keep: bool = False) -> Objects | RawItems:
    if kind == "raw":
        return RawItems([msgspec.json.encode(item) for item in items], "json")
    return Objects(items, encode, keep=keep, max_item=MAX_ITEM)


@pytest.mark.parametrize("kind", ["raw", "objects"])
@quick
@given(
    st.lists(st.integers(-1000, 1000) | st.text(max_size=100), min_size=1, max_size=60),
    counts,
    st.integers(0, 8),
    st.integers(1, 30),
    st.integers(2, 400),
)
def test_each_item_leaves_once(
    kind: str, items: list[Any], counts: list[int], before: int, last: int, max_bytes: int
) -> None:
    source = source_of(kind, list(items))
    found: dict[int, Any] = {}
    for number in range(10_000):
        is_last = number == before and source.has_items
        if is_last:
            piece = source.take_last(last, max_bytes)
            assert piece is None or piece.start + piece.count == len(items)
            assert piece is None or (len(piece.items) <= max_bytes and piece.count <= last)
            assert source.take_last(last, max_bytes) is None or piece is None
        else:
            piece = source.take(counts[number % len(counts)], max_bytes)
        if piece is not None:
            assert piece.error is None
            values = msgspec.json.decode(piece.items)
            found |= {piece.start + offset: value for offset, value in enumerate(values)}
            assert len(values) == piece.count
        elif not is_last:
            break
        assert source.total == len(items) and source.remaining == len(items) - len(found)
        assert source.has_items == (len(found) < len(items))
    assert [found[index] for index in range(len(items))] == items


@pytest.mark.parametrize("bad", [object(), "x" * 600])
def test_last_items_that_cannot_travel_are_left_for_later(bad: object) -> None:
    items: list[Any] = [1, 2, 3, bad]
    source = Objects(items, encode, keep=False, max_item=MAX_ITEM)
    assert source.take_last(2, 500) is None
    pieces = []
    while (piece := source.take(3, 500)) is not None:
        pieces.append((piece.start, piece.count, piece.error is not None))
    assert pieces == [(0, 3, False), (3, 1, True)]


def test_only_a_list_of_known_length_has_last_items() -> None:
    assert Objects(range(9), encode, keep=False, max_item=9).take_last(2, 500) is None
    assert Objects([1, 2, 3], encode, keep=True, max_item=9).take_last(2, 500) is None
    items = [1, 2, 3]
    source = Objects(items, encode, keep=False, max_item=9)
    items.pop()
    assert source.take_last(2, 500) is None, "its owner has made it shorter"


def test_a_list_that_becomes_longer_or_shorter_repeats_no_item() -> None:
    for change in (lambda items: items.extend([7, 8]), lambda items: items.pop(1)):
        items = [0, 1, 2, 3]
        source = Objects(items, encode, keep=False, max_item=9)
        assert source.take_last(1, 500) is not None
        change(items)
        taken = []
        while (piece := source.take(2, 500)) is not None:
            taken += range(piece.start, piece.start + piece.count)
        assert taken == [0, 1, 2]
        assert source.total == 4 and source.remaining == 0 and not source.has_items


@quick
@given(st.integers(40, 400), st.sampled_from([2, 3, 16]), st.integers(0, 2**32))
def test_the_second_chunk_is_the_end_of_a_list_whose_reader_wants_all_of_it(
    items: int, cores: int, seed: int
) -> None:
    random = Random(seed)
    costs = [0.01 * random.paretovariate(1.5) for _ in range(items)]
    for whole in (False, True):
        simulation = Simulation(cores)
        map = simulation.open(costs, whole=whole)
        simulation.run()
        computed = simulation.computed[map.id]
        assert sorted(computed) == list(range(items)) and map.is_sent
        # The first items are single ones, because nothing is known of them.
        assert computed[:2] == ([0, items - 1] if whole else [0, 1])
