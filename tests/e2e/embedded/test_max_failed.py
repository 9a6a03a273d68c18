"""``max_failed``: some items may fail, one more ends the map; in Python and over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

import functions
from jetmap import Cluster, ItemError, ItemRaised, TooManyFailed
from served import served
from servers import outcomes
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

ITEMS = list(range(100))  # ``odd_only`` raises for half of them.


@pytest.mark.parametrize("tolerated", [50, "50%", "100%", 1000])
async def test_tolerated_errors_stand_in_the_list(cluster: Cluster, tolerated: int | str) -> None:
    values = await cluster.map(functions.odd_only, ITEMS, max_failed=tolerated)
    assert [value for value in values if not isinstance(value, ItemError)] == ITEMS[1::2]
    assert [type(value) for value in values[::2]] == [ItemRaised] * 50
    found = await outcomes(cluster.stream(functions.odd_only, ITEMS, max_failed=tolerated))
    assert sum(outcome.ok for outcome in found) == 50
    # Items whose number is known only afterwards.
    assert len(await cluster.map(functions.odd_only, iter(ITEMS), max_failed=tolerated)) == 100


@pytest.mark.parametrize("tolerated", [0, 49, "49%"])
async def test_one_more_ends_it(cluster: Cluster, tolerated: int | str) -> None:
    with pytest.raises(TooManyFailed, match="max_failed is") as caught:
        await cluster.map(functions.odd_only, ITEMS, max_failed=tolerated)
    error = caught.value
    assert error.failed > 49 * bool(tolerated) and error.total == 100 >= error.done >= error.failed
    assert 0 < len(error.errors) <= 5 and all(e.message.endswith("even") for e in error.errors)
    assert isinstance(error.errors[0].__cause__, ValueError)
    async with cluster.stream(functions.odd_only, ITEMS, max_failed=tolerated) as stream:
        with pytest.raises(TooManyFailed):
            async for _ in stream:
                pass
    assert await cluster.map(functions.odd_only, [1, 3]) == [1, 3]


async def test_wrong_values_are_refused_at_the_call(cluster: Cluster) -> None:
    for wrong in (-1, "x", "101%"):
        with pytest.raises(ValueError, match="max_failed must be"):
            await cluster.map(functions.odd_only, ITEMS, max_failed=wrong)
        with pytest.raises(ValueError, match="max_failed must be"):
            cluster.stream(functions.odd_only, ITEMS, max_failed=wrong)

    async def feed() -> AsyncIterator[int]:
        yield 1

    for endless in (iter(ITEMS), feed()):
        with pytest.raises(ValueError, match="whose length is not known"):
            cluster.stream(functions.odd_only, endless, max_failed="5%")
    assert (
        len(await outcomes(cluster.stream(functions.odd_only, iter(ITEMS), max_failed=50))) == 100
    )


async def test_over_http(shared: Cluster) -> None:
    async with served(shared) as port, httpx.AsyncClient(timeout=PATIENCE) as client:
        client.base_url = httpx.URL(f"http://127.0.0.1:{port}/map/odd_only")
        answer = await client.post("?max_failed=50%25", json=ITEMS)
        assert answer.status_code == 200 and len(answer.json()["errors"]) == 50
        refused = await client.post("?max_failed=49", json=ITEMS)
        problem = refused.json()
        assert (refused.status_code, problem["type"]) == (500, "urn:jetmap:too-many-failed")
        assert problem["failed"] == 50 and problem["total"] == 100
        assert [record["kind"] for record in problem["errors"]] == ["raised"] * 5
        for accept in ("application/jsonl", "text/event-stream"):
            headers = {"Accept": accept}
            streamed = await client.post("?max_failed=49", json=ITEMS, headers=headers)
            # In band if some outcomes went out before.
            assert streamed.status_code in (200, 500) and "too-many-failed" in streamed.text
        invalid = await client.post("?max_failed=1", json=["a", "b"])
        assert (invalid.status_code, invalid.json()["failed"]) == (422, 2)
        lines = {"content": json.dumps(1), "headers": {"Content-Type": "application/jsonl"}}
        for query in ("?max_failed=5%25", "?max_failed=x", "?max_failed="):
            wrong = await client.post(query, **lines)
            assert (wrong.status_code, wrong.json()["parameter"]) == (400, "max_failed")
        assert (await client.post("?max_failed=0", **lines)).json() == {"values": [1], "errors": []}
