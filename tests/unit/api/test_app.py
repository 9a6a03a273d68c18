"""The gateway as an application: alone, mounted, guarded; and what it tells about itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fake_cluster import FakeCluster, gateway
from jetmap.client.cluster import Cluster
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings
from jetmap_api import ClusterDep, create_app, lifespan, until_disconnect
from jetmap_api.samples import sample

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


async def test_functions_and_workers() -> None:
    async with gateway(FakeCluster(double, power)) as client:
        functions = (await client.get("/functions")).json()
        one = (await client.get("/functions/power")).json()
        none = await client.get("/functions/nothing")
        workers = (await client.get("/workers")).json()
    assert [f["name"] for f in functions] == ["double", "power"]
    assert one["item"] == {"type": "integer"}
    assert one["value"] == {"type": "number"}
    assert set(one["kwargs"]["properties"]) == {"exponent", "base"}
    assert one["agents"] == ["here"]
    assert none.status_code == 404
    assert none.headers["content-type"] == "application/problem+json"
    assert workers[0]["functions"] == ["double", "power"]
    assert [core["cpu"] for core in workers[0]["workers"]] == [0, 1]


async def test_health_and_readiness() -> None:
    cluster = FakeCluster(double)
    async with gateway(cluster) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        cluster.connected = False
        assert (await client.get("/healthz")).status_code == 200
        response = await client.get("/readyz")
    assert (response.status_code, response.json()["missing"]) == (503, "broker")


async def test_metrics_in_both_formats() -> None:
    cluster = FakeCluster(double)
    async with gateway(cluster) as client:
        await client.post("/map/double", json=[1, 2, 3])
        await client.post("/map/double", json=["x"])
        cluster.stats.queue_wait.observe(0.002)
        cluster.stats.queue_wait.observe(70)
        plain = await client.get("/metrics")
        modern = await client.get(
            "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
        )
    assert modern.text.endswith("# EOF\n")
    samples = {
        (s.name, s.labels.get("kind") or s.labels.get("outcome") or s.labels.get("le", "")): s.value
        for family in text_string_to_metric_families(plain.text)
        for s in family.samples
    }
    assert samples["jetmap_maps_started_total", ""] == 2
    assert samples["jetmap_items_total", ""] == 4
    assert samples["jetmap_item_errors_total", "invalid"] == 1
    assert samples["jetmap_item_errors_total", "lost"] == 0
    assert samples["jetmap_backlog_seconds", ""] == 0
    assert samples["jetmap_queue_wait_seconds_bucket", "0.001"] == 0
    assert samples["jetmap_queue_wait_seconds_bucket", "0.0025"] == 1
    assert samples["jetmap_queue_wait_seconds_bucket", "30.0"] == 1
    assert samples["jetmap_queue_wait_seconds_bucket", "+Inf"] == 2
    assert samples["jetmap_queue_wait_seconds_count", ""] == 2


async def test_other_paths_are_problems_too() -> None:
    async with gateway(FakeCluster(double)) as client:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("PUT", "/jobs/double", 405),
            ("GET", "/jobs/double", 501),
            ("POST", "/jobs/double/results", 405),
            ("GET", "/map/double", 405),
            ("POST", "/map/a/b", 404),
            ("POST", "/map/", 404),
            ("POST", "/functions", 405),
        ):
            response = await client.request(method, path)
            assert response.status_code == status
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["status"] == status


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
    statuses = {
        "200",
        "202",
        "400",
        "401",
        "403",
        "404",
        "406",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
        "504",
    }
    assert set(double_post["responses"]) == statuses
    names = [p["name"] for p in document["paths"]["/map/power"]["post"]["parameters"]]
    assert names == ["errors", "order", "timeout", "max_failed", "values", "Prefer", "kwargs"]
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


@pytest.mark.parametrize(
    "kind",
    [
        int,
        float,
        str,
        bytes,
        bool,
        None,
        Any,
        date,
        UUID,
        list[int],
        set[str],
        tuple[int, str, float],
        dict[str, float],
        int | None,
        str | list[int],
        Literal["a", "b"],
        Annotated[int, msgspec.Meta(ge=10, multiple_of=7)],
        Annotated[int, msgspec.Meta(le=-3)],
        Annotated[float, msgspec.Meta(gt=0, lt=1)],
        Annotated[float, msgspec.Meta(le=0)],
        Annotated[str, msgspec.Meta(min_length=30)],
        Annotated[str, msgspec.Meta(max_length=2)],
        Annotated[list[int], msgspec.Meta(min_length=4)],
        Annotated[list[int], msgspec.Meta(max_length=1)],
        Point,
        Tree,
        Cat | Dog,
    ],
)
def test_samples_fit_their_schema(kind: Any) -> None:
    schema = msgspec.json.schema(kind)
    for variant in range(3):
        value = sample(schema, schema.get("$defs", {}), variant)
        msgspec.json.decode(msgspec.json.encode(value), type=kind)


# Guards


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("app.localhost", True),
        ("127.0.0.1:8000", True),
        ("127.1.2.3", True),
        ("[::1]:8000", True),
        ("Example.com:443", True),
        ("a.inner.net", True),
        ("inner.net", False),
        ("evil.com", False),
        ("localhost.evil.com", False),
        ("example.com.evil.com", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
async def test_only_known_hosts_are_served(host: str, allowed: bool) -> None:
    options = {"allowed_hosts": ["example.com", "*.inner.net"]}
    async with gateway(FakeCluster(double), **options) as client:
        for path in ("/map/double", "/map/double"):
            response = await client.post(path, json=[1], headers={"host": host})
            assert response.status_code == (200 if allowed else 403)
        probe = await client.get("/healthz", headers={"host": host})
    assert probe.status_code == 200
    if not allowed:
        assert response.headers["content-type"] == "application/problem+json"
        assert "allowed_hosts" in response.json()["detail"]


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


async def test_a_token_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    async with gateway(FakeCluster(double), token_file=str(file), host="0.0.0.0") as client:
        for path in ("/functions", "/metrics", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 401
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path)).status_code == 200
        none = await client.post("/map/double", json=[1])
        wrong = await client.post(
            "/map/double", json=[1], headers={"authorization": "Bearer other"}
        )
        basic = await client.post("/map/double", json=[1], headers={"authorization": "Basic eA=="})
        right = await client.post(
            "/map/double",
            json=[1],
            headers={"authorization": "bearer s3cret", "host": "gateway.example"},
        )
    for response in (none, wrong, basic):
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.headers["content-type"] == "application/problem+json"
    assert right.json() == [2]


def test_other_hosts_are_not_served_without_a_token() -> None:
    with pytest.raises(ConfigurationError, match="token_file"):
        create_app(cast(Cluster, FakeCluster(double)), Settings(host="0.0.0.0"))


async def test_origins_are_allowed_by_setting(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret")
    preflight = {
        "origin": "https://page.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type, authorization",
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
    async with gateway(FakeCluster(double)) as client:
        silent = await client.options("/map/double", headers=preflight)
    assert "access-control-allow-origin" not in silent.headers


# Embedding


async def test_mounted_with_a_cluster() -> None:
    outer = FastAPI()
    outer.mount("/jetmap", create_app(cast(Cluster, FakeCluster(double)), Settings()))
    async with client_of(outer) as client:
        response = await client.post("/jetmap/map/double", json=[1, 2])
        functions = await client.get("/jetmap/functions")
        document = (await client.get("/jetmap/openapi.json")).json()
    assert response.json() == [2, 4]
    assert functions.json()[0]["name"] == "double"
    assert document["servers"] == [{"url": "/jetmap"}]


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


async def test_the_users_middleware_sees_maps() -> None:
    seen: list[str] = []

    class Watcher:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seen.append(scope["path"])
                await send(message)

            await self.app(scope, receive, watched)

    app = create_app(cast(Cluster, FakeCluster(double)), Settings())
    app.add_middleware(Watcher)
    async with client_of(app) as client:
        assert (await client.post("/map/double", json=[1])).json() == [2]
    assert seen == ["/map/double"]
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


async def test_an_endpoint_of_the_users_own_ends_when_its_client_leaves() -> None:
    users = FastAPI()
    begun = asyncio.Event()
    cancelled = asyncio.Event()

    @users.post("/primes")
    async def primes(numbers: list[int], request: Request) -> list[int]:
        with until_disconnect(request):
            if numbers:
                return numbers
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return []

    async with client_of(users) as client:
        assert (await client.post("/primes", json=[1])).json() == [1]

    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b"[]", "more_body": False})
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/primes",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    task = asyncio.create_task(users(scope, messages.get, send))
    await begun.wait()
    messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(task, 1)
    assert cancelled.is_set()
    assert sent[0]["status"] == 499
