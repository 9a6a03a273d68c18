"""``values=False``: a function is called for its side effects only."""

from __future__ import annotations

import httpx
import pytest

import functions
from jetmap import Cluster, ItemRaised
from served import served
from servers import outcomes
from waiting import PATIENCE

pytestmark = pytest.mark.anyio


async def test_each_value_is_none(cluster: Cluster) -> None:
    assert await cluster.map(functions.is_prime, range(300), values=False) == [None] * 300
    assert await cluster.map("is_prime", range(300), values=False) == [None] * 300
    kept = await cluster.map(functions.odd_only, range(6), values=False, return_exceptions=True)
    assert [type(value) for value in kept] == [ItemRaised, type(None)] * 3
    found = await outcomes(cluster.stream(functions.odd_only, range(6), values=False, ordered=True))
    assert [outcome.ok for outcome in found] == [False, True] * 3
    assert {outcome.value for outcome in found if outcome.ok} == {None}
    with pytest.raises(ItemRaised):
        await cluster.map(functions.odd_only, [1, 2], values=False)


async def test_a_value_that_cannot_travel_does_not_matter(cluster: Cluster) -> None:
    assert await cluster.map(functions.unencodable, range(10), values=False) == [None] * 10
    assert await cluster.map(functions.lies, range(10), values=False) == [None] * 10


async def test_over_http(shared: Cluster) -> None:
    async with served(shared) as port, httpx.AsyncClient(timeout=PATIENCE) as client:
        client.base_url = httpx.URL(f"http://127.0.0.1:{port}/map/odd_only")
        assert (await client.post("?values=false", json=[1, 3])).json() == [None, None]
        assert (await client.post("?values=true", json=[1, 3])).json() == [1, 3]
        failed = await client.post("?values=false", json=[1, 2])
        assert (failed.status_code, failed.json()["error"]["index"]) == (500, 1)
        wrong = await client.post("?values=no", json=[1])
        assert (wrong.status_code, wrong.json()["parameter"]) == (400, "values")
