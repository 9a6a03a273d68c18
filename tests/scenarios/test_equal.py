"""Any list, with any costs and failing items, gives what ``[f(x) for x in items]`` gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import functions
from any_list import in_a_loop, lists, same
from functions import Parcel
from hypotheses import examples
from jetmap import Cluster, ItemError, ItemInvalid, ItemRaised
from servers import outcomes

pytestmark = pytest.mark.anyio

integers = st.integers(-(2**63), 2**63 - 1)
examples = examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def told(index: int, value: Any) -> tuple[str, Any]:
    if isinstance(value, ItemError):
        assert value.index == index
        assert isinstance(value, {"raised": ItemRaised, "invalid": ItemInvalid}[value.kind])
        return value.kind, value.message
    return "value", value


def check(found: list[Any], expected: list[tuple[str, Any]]) -> None:
    """found: values, and errors in the places of those that failed."""
    assert len(found) == len(expected)
    outcomes = [told(index, value) for index, value in enumerate(found)]
    assert [pair for pair in zip(outcomes, expected, strict=True) if not same(*pair)] == []


@examples
@given(parcels=lists)
async def test_map_with_errors_in_their_places(cluster: Cluster, parcels: list[Parcel]) -> None:
    values = await cluster.map(functions.weigh, parcels, return_exceptions=True)
    check(values, in_a_loop(parcels))


@examples
@given(parcels=lists)
async def test_map(cluster: Cluster, parcels: list[Parcel]) -> None:
    expected = in_a_loop(parcels)
    first = next((i for i, (kind, _) in enumerate(expected) if kind != "value"), None)
    if first is None:
        check(await cluster.map(functions.weigh, parcels), expected)
        return
    with pytest.raises(ItemError) as caught:
        await cluster.map(functions.weigh, iter(parcels))
    assert caught.value.index == first
    assert same(told(first, caught.value), expected[first])


@examples
@given(parcels=lists, ordered=st.booleans(), lazy=st.booleans())
async def test_stream(cluster: Cluster, parcels: list[Parcel], ordered: bool, lazy: bool) -> None:
    source = iter(parcels) if lazy else parcels
    found = await outcomes(cluster.stream(functions.weigh, source, ordered=ordered))
    assert [outcome.item for outcome in found] == parcels
    check([o.value if o.ok else o.error for o in found], in_a_loop(parcels))


@examples
@given(items=st.lists(integers, max_size=200))
async def test_values_of_every_size(cluster: Cluster, items: list[int]) -> None:
    assert await cluster.map(functions.empty, items) == items


@examples
@given(items=st.lists(st.lists(st.integers(-1000, 1000), max_size=300).map(tuple), max_size=30))
async def test_items_of_every_size(cluster: Cluster, items: list[tuple[int, ...]]) -> None:
    assert await cluster.map(functions.add, items) == [functions.add(item) for item in items]
