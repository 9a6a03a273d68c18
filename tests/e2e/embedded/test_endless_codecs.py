"""An item whose decoding never ends, or whose value's encoding does, fails by its timeout alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

import endless
from endless import Checked, Endless
from jetmap import Cluster, ItemTimeout

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def one(mark: str) -> AsyncIterator[Cluster]:
    """A cluster of one worker, so that a function's first call there is the test's first."""
    async with Cluster(cores=1, share=False) as cluster:
        yield cluster


async def check(cluster: Cluster, f: Any, items: list[Any], right: list[Any], bad: int) -> None:
    await cluster.map(f, items[:1])  # A function's first call may take long.
    found = await cluster.map(f, items, return_exceptions=True)
    assert type(found[bad]) is ItemTimeout and "timeout of 0.5 s" in found[bad].message
    assert found[:bad] + found[bad + 1 :] == right[:bad] + right[bad + 1 :]


async def test_a_pickle_that_is_loaded(one: Cluster) -> None:
    items: list[Any] = [{"a": n} for n in range(40)]
    items[21] = Endless("loads")
    await check(one, endless.kept, items, items, 21)


async def test_a_value_that_is_pickled(one: Cluster) -> None:
    await check(one, endless.made, list(range(40)), list(range(40)), endless.BAD)


async def test_an_annotated_class(one: Cluster) -> None:
    items = [Checked(n, hangs=n == 21) for n in range(40)]
    await check(one, endless.number, items, list(range(40)), 21)


async def test_a_batch(one: Cluster) -> None:
    items: list[Any] = list(range(20))
    items[13] = Endless("loads")
    await check(one, endless.batched, items, items, 13)
