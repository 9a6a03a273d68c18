"""For any list, any mix of costs and any failing items: what ``[f(x) for x in items]`` gives."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import functions
from functions import Work
from jetmap import Cluster, ItemError, ItemRaised
from support import outcomes

pytestmark = pytest.mark.anyio

# Few long ones among many short ones; so chunks of all lengths, cut on wrong estimates too.
costs = st.one_of(st.just(0), st.integers(0, 200), st.sampled_from([1000, 5000, 20_000]))
integers = st.integers(-(2**63), 2**63 - 1)
some_items = st.lists(st.builds(Work, integers, costs, st.booleans()), max_size=40)
good_items = st.lists(st.builds(Work, integers, costs), max_size=60)
# Hypothesis's own lists are short: long ones are made of a few numbers.
many_items = st.builds(
    lambda count, every, micros, failing: [
        Work(n, micros if n % every == 0 else 0, n in failing) for n in range(count)
    ],
    st.integers(0, 5000),
    st.integers(1, 50),
    st.sampled_from([0, 100, 1000]),
    st.sets(st.integers(0, 5000), max_size=5),
)
examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def in_a_loop(items: list[Work]) -> list[int | str]:
    """What a loop over the items gives: values, and the messages of errors."""
    found: list[int | str] = []
    for item in items:
        try:
            found.append(functions.work(Work(item.value, 0, item.fails)))
        except ValueError as error:
            found.append(str(error))
    return found


def told(index: int, value: int | ItemError) -> int | str:
    if isinstance(value, ItemError):
        assert (value.index, value.kind, value.type) == (index, "raised", "ValueError")
        return value.message
    return value


@examples
@given(items=st.one_of(some_items, many_items))
async def test_map_with_errors_in_their_places(cluster: Cluster, items: list[Work]) -> None:
    values = await cluster.map(functions.work, items, return_exceptions=True)
    assert [told(i, value) for i, value in enumerate(values)] == in_a_loop(items)


@examples
@given(items=st.one_of(some_items, good_items, many_items))
async def test_map(cluster: Cluster, items: list[Work]) -> None:
    first = next((i for i, item in enumerate(items) if item.fails), None)
    if first is None:
        assert await cluster.map(functions.work, items) == in_a_loop(items)
        return
    with pytest.raises(ItemRaised) as caught:
        await cluster.map(functions.work, iter(items))
    assert caught.value.index == first
    assert caught.value.message == in_a_loop(items)[first]


@examples
@given(items=st.one_of(some_items, many_items), ordered=st.booleans(), lazy=st.booleans())
async def test_stream(cluster: Cluster, items: list[Work], ordered: bool, lazy: bool) -> None:
    source = iter(items) if lazy else items
    found = await outcomes(cluster.stream(functions.work, source, ordered=ordered))
    assert [outcome.item for outcome in found] == items
    assert [told(o.index, o.error or o.value) for o in found] == in_a_loop(items)


@examples
@given(items=st.lists(integers, max_size=200))
async def test_values_of_every_size(cluster: Cluster, items: list[int]) -> None:
    assert await cluster.map(functions.empty, items) == items


@examples
@given(items=st.lists(st.lists(st.integers(-1000, 1000), max_size=300).map(tuple), max_size=30))
async def test_items_of_every_size(cluster: Cluster, items: list[tuple[int, ...]]) -> None:
    assert await cluster.map(functions.add, items) == [functions.add(item) for item in items]
