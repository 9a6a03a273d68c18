"""Keyword parameters that do not fit are refused before anything runs."""

from __future__ import annotations

import pytest

import functions
from fake_cluster import gateway
from jetmap import Cluster, UnknownFunction
from over_http import check_problem

pytestmark = pytest.mark.anyio


async def test_real_functions(inline: Cluster) -> None:
    async with gateway(inline) as client:  # type: ignore[arg-type]
        response = await client.post('/map/scale?kwargs={"by":3}', json=[1, 2])
        assert response.json() == [3, 6]
        check_problem(await client.post("/map/scale", json=[1, 2]), 400, "bad-parameter")
        check_problem(await client.post("/map/nobodys", json=[1]), 404, "unknown-function")


async def test_by_name_in_python(shared: Cluster) -> None:
    assert await shared.map("scale", [1, 2], kwargs={"by": 3}) == [3, 6]
    for kwargs in ({}, {"bye": 1}, {"by": 1, "plus": 2, "more": 3}):
        with pytest.raises(TypeError, match=r"keyword parameters of scale: .* it takes by"):
            await shared.map("scale", [1, 2], kwargs=kwargs)
        with pytest.raises(TypeError, match="keyword parameters of scale"):
            async for _ in shared.stream("scale", [], kwargs=kwargs):
                pass
        with pytest.raises(TypeError, match="keyword parameters of scale"):
            await shared.map(functions.scale, [1], kwargs=kwargs)
    with pytest.raises(UnknownFunction):
        await shared.map("nobodys", [1], kwargs={"by": 1})
