"""The gateway as an application: alone, mounted, guarded; and what it tells about itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import UUID

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from fake_cluster import FakeCluster, gateway
from jetmap.client.cluster import Cluster
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings
from jetmap_api import ClusterDep, create_app, lifespan
from served import Signing

pytestmark = pytest.mark.anyio


def double(n: int) -> int:
    """Twice as much.

    For every number.
    """
    return n * 2


def power(n: int, *, exponent: int, base: float = 1.0) -> float:
    return base * float(n**exponent)


def client_of(app: ASGIApp, url: str = "http://localhost") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url)


# What it tells


# OpenAPI


class Point(msgspec.Struct):
    x: float
    y: Annotated[int, msgspec.Meta(gt=5, lt=9)]
    tags: list[str] = []


@dataclass
class Tree:
    value: int
    children: list[Tree]


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str
    friend: Cat | Dog | None


def place(point: Point) -> Tree:
    return Tree(1, [])


def pet(animal: Cat | Dog) -> UUID | None:
    return None


async def test_openapi_has_a_path_for_every_function_with_examples() -> None:
    async with gateway(FakeCluster(double, power, place, pet)) as client:
        document = (await client.get("/openapi.json")).json()
        docs = await client.get("/docs")
        for name in ("double", "place", "pet"):
            post = document["paths"][f"/map/{name}"]["post"]
            example = post["requestBody"]["content"]["application/json"]["example"]
            assert len(example) == 3
            response = await client.post(f"/map/{name}?errors=collect", json=example)
            assert not [e for e in response.json()["errors"] if e["kind"] == "invalid"]
    assert docs.status_code == 200
    double_post = document["paths"]["/map/double"]["post"]
    assert double_post["summary"] == "Twice as much."
    assert double_post["description"] == "For every number."
    schema = double_post["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"type": "array", "items": {"type": "integer"}}
    statuses = (200, 202, 400, 401, 403, 404, 406, 413, 415, 422, 429, 500, 503, 504)
    assert set(double_post["responses"]) == set(map(str, statuses))
    assert "WWW-Authenticate" in double_post["responses"]["401"]["headers"]
    ids = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids)) and all(id.isidentifier() for id in ids)
    names = [p["name"] for p in document["paths"]["/map/power"]["post"]["parameters"]]
    more = ["labels", "max_parallel", "Prefer", "kwargs"]
    assert names == ["errors", "order", "timeout", "max_failed", "values", *more]
    assert set(references(document)) <= {
        f"#/components/schemas/{name}" for name in document["components"]["schemas"]
    }
    assert "/map/{function}" not in document["paths"]


async def test_openapi_follows_the_functions() -> None:
    async with gateway(FakeCluster()) as client:
        assert "/map/{function}" in (await client.get("/openapi.json")).json()["paths"]
    cluster = FakeCluster(double)
    async with gateway(cluster) as client:
        assert "/map/power" not in (await client.get("/openapi.json")).json()["paths"]
        cluster.add(power)
        assert "/map/power" in (await client.get("/openapi.json")).json()["paths"]


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        found = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return found + [r for inner in part.values() for r in references(inner)]
    return [r for inner in part for r in references(inner)] if isinstance(part, list) else []


# Guards


@pytest.mark.parametrize(
    ("options", "foreign"),
    [
        ({}, 403),
        ({"token": "s3cret"}, 403),
        ({"token": "s3cret", "allowed_hosts": ["gateway.example"]}, 200),
        ({"token": "s3cret", "host": "0.0.0.0"}, 200),
        ({"token": "s3cret", "host": "0.0.0.0", "allowed_hosts": ["other.example"]}, 403),
    ],
)
async def test_a_foreign_host_with_and_without_a_token(
    options: dict[str, Any], foreign: int
) -> None:
    headers = {"authorization": "Bearer s3cret"}
    async with gateway(FakeCluster(double), **options) as client:
        for host, status in (("localhost", 200), ("gateway.example", foreign)):
            response = await client.post("/map/double", json=[1], headers={**headers, "host": host})
            assert response.status_code == status
            if status == 403:
                assert response.json()["type"] == "urn:jetmap:host-not-allowed"


def test_other_hosts_are_not_served_without_a_token() -> None:
    with pytest.raises(ConfigurationError, match="token_file"):
        create_app(cast(Cluster, FakeCluster(double)), Settings(host="0.0.0.0"))


async def test_origins_are_allowed_by_setting(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret")
    preflight = {
        "origin": "https://page.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, idempotency-key, prefer",
    }
    options: dict[str, Any] = {"cors_origins": ["https://page.example"], "token_file": str(file)}
    async with gateway(FakeCluster(double), **options) as client:
        asked = await client.options("/map/double", headers=preflight)
        refused = await client.options(
            "/map/double", headers=preflight | {"origin": "https://evil.example"}
        )
        post = await client.post(
            "/map/double",
            json=[1],
            headers={"origin": "https://page.example", "authorization": "Bearer s3cret"},
        )
        unauthorized = await client.post(
            "/map/double", json=[1], headers={"origin": "https://page.example"}
        )
    assert asked.status_code == 200
    assert refused.status_code == 400
    for response in (asked, post, unauthorized):
        assert response.headers["access-control-allow-origin"] == "https://page.example"
    exposed = post.headers["access-control-expose-headers"].lower()
    assert all(n in exposed for n in ("location", "preference-applied", "retry-after", "link"))
    assert "accept-post" in exposed and "accept-patch" in exposed
    async with gateway(FakeCluster(double)) as client:
        silent = await client.options("/map/double", headers=preflight)
    assert "access-control-allow-origin" not in silent.headers


# Embedding


async def test_mounted_without_one_it_uses_the_applications_cluster() -> None:
    @asynccontextmanager
    async def own_lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.cluster = FakeCluster(double)
        yield

    outer = FastAPI(lifespan=own_lifespan)
    outer.mount("/jetmap", create_app(settings=Settings()))

    @outer.get("/names")
    async def names(cluster: ClusterDep) -> list[str]:
        return [status.info.name for status in cluster.functions]

    async with client_of(outer) as client:
        early = await client.post("/jetmap/map/double", json=[1])
        assert early.status_code == 503
        assert "lifespan" in early.json()["detail"]
        async with outer.router.lifespan_context(outer):
            assert (await client.post("/jetmap/map/double", json=[1])).json() == [2]
            assert (await client.get("/names")).json() == ["double"]
            assert (await client.get("/jetmap/readyz")).status_code == 200
            document = (await client.get("/jetmap/openapi.json")).json()
            assert document["servers"] == [{"url": "/jetmap"}]


async def test_the_users_middleware_sees_maps() -> None:
    app = create_app(cast(Cluster, FakeCluster(double)), Settings())
    app.add_middleware(Signing)
    async with client_of(app) as client:
        response = await client.post("/map/double", json=[1])
    assert (response.json(), response.headers["x-signed"]) == ([2], "yes")
    assert app.url_path_for("map", function="double") == "/map/double"


async def test_an_own_cluster_lives_from_startup_to_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCluster(double)
    steps: list[str] = []

    class Own:
        def __init__(self, **options: Any) -> None:
            assert options.keys() <= {"settings"}

        async def __aenter__(self) -> FakeCluster:
            steps.append("started")
            return fake

        async def __aexit__(self, *exc: object) -> None:
            steps.append("closed")

    monkeypatch.setattr("jetmap_api.app.Cluster", Own)
    monkeypatch.setattr("jetmap_api.dependency.Cluster", Own)
    app = create_app(settings=Settings())
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.post("/map/double", json=[1])).json() == [2]
    assert steps == ["started", "closed"]
    users = FastAPI(lifespan=lifespan)
    async with users.router.lifespan_context(users):
        assert users.state.cluster is fake
    assert steps == ["started", "closed"] * 2
