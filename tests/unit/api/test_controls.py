"""Functions and the pool over HTTP: paused, resumed, limited."""

from __future__ import annotations

import pytest

from fake_cluster import FakeCluster, gateway
from jetmap.errors import BrokerUnreachable
from jetmap.wire.controls import FunctionControl, PoolControl
from jetmap_api.models import SteeredFunction, SteeredPool
from over_http import check_problem, double

pytestmark = pytest.mark.anyio


async def test_a_function_is_paused_limited_and_resumed() -> None:
    cluster = FakeCluster(double)
    async with gateway(cluster) as client:
        for action, paused, limit in (
            ("pause", True, None),
            ("pause", True, None),  # Two people click at once.
            ("limit?max_parallel=3", True, 3),
            ("resume", False, 3),
            ("limit", False, None),
        ):
            answer = await client.post(f"/functions/double/{action}")
            expected = {
                "name": "double",
                "paused": paused,
                "max_parallel": limit,
                "max_parallel_in_code": None,
            }
            assert (answer.status_code, answer.json()) == (200, expected)
            assert SteeredFunction.model_validate(answer.json())
            shown = (await client.get("/functions/double")).json()
            assert (shown["paused"], shown["max_parallel"]) == (paused, limit)
            assert (await client.get("/functions")).json() == [shown]


async def test_the_limit_of_the_code_is_shown_beside_that_of_people() -> None:
    cluster = FakeCluster(double)
    cluster.max_parallel["double"] = 4
    async with gateway(cluster) as client:
        for action, limit in (
            ("pause", 4),
            ("limit?max_parallel=3", 3),
            ("limit", 4),
            ("limit?max_parallel=2", 2),
            ("limit?max_parallel=0", 4),
        ):
            answer = (await client.post(f"/functions/double/{action}")).json()
            shown = (await client.get("/functions/double")).json()
            [listed] = (await client.get("/pool")).json()["functions"]
            for found in (answer, shown, listed):
                assert (found["max_parallel"], found["max_parallel_in_code"]) == (limit, 4)


async def test_the_pool_is_paused_and_resumed() -> None:
    cluster = FakeCluster(double)
    async with gateway(cluster) as client:
        await client.post("/functions/double/limit?max_parallel=2")
        functions = [
            {
                "name": "double",
                "paused": False,
                "max_parallel": 2,
                "max_parallel_in_code": None,
            }
        ]
        for action, paused in (("pause", True), ("resume", False)):
            answer = await client.post(f"/pool/{action}")
            expected = {"pool": "default", "paused": paused, "functions": functions}
            assert (answer.status_code, answer.json()) == (200, expected)
            assert SteeredPool.model_validate((await client.get("/pool")).json()).paused is paused


@pytest.mark.parametrize("limit", ["-1", "1.5", "x", "1000001"])
async def test_a_limit_that_is_not_a_number_of_cores_is_refused(limit: str) -> None:
    async with gateway(FakeCluster(double)) as client:
        answer = await client.post(f"/functions/double/limit?max_parallel={limit}")
        assert "from 0 to 1,000,000" in check_problem(answer, 400, "bad-parameter")["detail"]


async def test_unknown_names_and_a_broker_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(double)
    async with gateway(cluster) as client:
        check_problem(await client.post("/functions/none/pause"), 404, "unknown-function")
        check_problem(await client.post("/pool/cancel"), 404, "not-found")
        check_problem(await client.post("/pool/pause?x=1"), 400, "bad-parameter")

        async def away(*_: object, **__: object) -> PoolControl:
            raise BrokerUnreachable("the broker does not answer")

        monkeypatch.setattr(cluster, "steer", away)
        check_problem(await client.post("/pool/pause"), 503, "no-broker")


async def test_the_dashboard_steers_for_pages_of_its_own_only() -> None:
    cluster = FakeCluster(double)
    own = {"origin": "http://localhost"}
    async with gateway(cluster) as client:
        for path in ("/ui/functions/double/pause", "/ui/pool/pause"):
            other = await client.post(path, headers={"origin": "http://elsewhere"})
            check_problem(other, 403, "cross-site-request")
            assert (await client.post(path, headers=own)).status_code == 204
        limit = await client.post("/ui/functions/double/limit", headers=own, json={"cores": 2})
        assert limit.status_code == 204
        assert cluster.control == PoolControl(True, {"double": FunctionControl(True, 2)})
        for path in ("/ui/functions/double/resume", "/ui/pool/resume"):
            assert (await client.post(path, headers=own)).status_code == 204
        await client.post("/ui/functions/double/limit", headers=own, json={"cores": 0})
        assert cluster.control == PoolControl()
        check_problem(await client.post("/ui/pool/limit", headers=own), 404, "not-found")
        none = await client.post("/ui/functions/none/pause", headers=own)
        check_problem(none, 404, "unknown-function")
