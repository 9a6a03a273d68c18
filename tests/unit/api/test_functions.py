"""Documents of functions and workers."""

from __future__ import annotations

import pytest

from fake_cluster import FakeCluster, gateway
from jetmap_api.functions import describe
from jetmap_api.models import Agent, Function
from over_http import check_problem, double

pytestmark = pytest.mark.anyio


def test_a_function_fits_its_model() -> None:
    (status,) = FakeCluster(double).functions
    document = describe(status)
    assert Function.model_validate(document).name == "double"
    assert document["alive"] and document["cores"] == 2 and document["agents"] == ["here"]


async def test_lists_and_one_function() -> None:
    async with gateway(FakeCluster(double)) as client:
        listed = (await client.get("/functions")).json()
        one = (await client.get("/functions/double")).json()
        (agent,) = (await client.get("/workers")).json()
        problem = check_problem(await client.get("/functions/none"), 404, "unknown-function")
    assert listed == [one]
    assert Agent.model_validate(agent).functions == ["double"]
    assert "offered: double" in problem["detail"]
