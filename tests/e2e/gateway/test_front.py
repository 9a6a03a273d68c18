"""The gateway behind proxies and under probes: HEAD, OPTIONS, prefixes, slashes, CORS."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from starlette.middleware.cors import CORSMiddleware

from fake_cluster import FakeCluster, gateway
from jetmap.client.cluster import Cluster
from jetmap.errors import ConfigurationError, TooManyMaps
from jetmap.settings import Settings
from jetmap_api import create_app
from jetmap_api.front import under
from jobs_over_http import site, submit, until_over
from over_http import check_problem, double
from served import Signing

pytestmark = pytest.mark.anyio

GETS = (
    *("/", "/functions", "/functions/double", "/workers", "/jobs", "/healthz", "/readyz"),
    *("/metrics", "/openapi.json", "/docs", "/login", "/assets/pages.css"),
)


# HEAD


@pytest.mark.parametrize("middleware", [False, True])
async def test_head_answers_as_get_without_a_body(middleware: bool) -> None:
    cluster, _ = site()
    app = create_app(cast(Cluster, cluster), Settings())
    if middleware:
        app.add_middleware(Signing)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        job = await submit(client, "double", [1, 2])
        await until_over(client, job["id"])
        page = f"{job['links']['results']}?limit=1"
        for path in (*GETS, job["links"]["self"], page):
            got, headed = await client.get(path), await client.head(path)
            assert headed.status_code == got.status_code, path
            assert headed.content == b"" and headed.headers.keys() == got.headers.keys(), path
            if path != "/metrics":
                length = got.headers["content-length"]
                assert headed.headers["content-length"] == length == str(len(got.content)), path
        missing = await client.head("/jobs/nothing")
        wrong = await client.head("/map/double")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert wrong.headers["allow"] == "POST, OPTIONS"


async def test_head_of_a_stream_follows_nothing() -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "double", [1])
        for path, media in (
            (job["links"]["events"], "text/event-stream"),
            (job["links"]["results"] + "?wait=600", "application/jsonl"),
            (job["links"]["results"] + "?wait=600", "application/json"),
        ):
            response = await client.head(path, headers={"accept": media})
            assert response.status_code == 200, path
            assert response.headers["content-type"].startswith(media)
    assert jobs.waiters == 0


# OPTIONS and Allow

ALLOWED = {
    "/": "GET, HEAD, OPTIONS",
    "/functions": "GET, HEAD, OPTIONS",
    "/functions/double": "GET, HEAD, OPTIONS",
    "/map/double": "POST, OPTIONS",
    "/jobs": "GET, HEAD, OPTIONS",
    "/jobs/double": "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
    "/jobs/1/results": "GET, HEAD, OPTIONS",
    "/jobs/1/events": "GET, HEAD, OPTIONS",
    "/jobs/1/events/address": "POST, OPTIONS",
    "/jobs/1/cancel": "POST, OPTIONS",
    "/login": "GET, HEAD, POST, OPTIONS",
    "/logout": "POST, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
    "/assets/pages.css": "GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize("token", [None, "s3cret"])
async def test_options_tells_all_methods(token: str | None) -> None:
    """Neither a token nor a known host is needed: probes have neither."""
    async with gateway(FakeCluster(double), token=token) as client:
        for path, methods in ALLOWED.items():
            response = await client.options(path, headers={"host": "10.1.2.3"})
            assert (response.status_code, response.headers["allow"]) == (204, methods), path
            assert response.content == b"" and "content-length" not in response.headers
        submit = await client.options("/map/double")
        missing = await client.options("/nothing")
    assert "application/jsonl" in submit.headers["accept-post"]
    check_problem(missing, 404, "not-found")


async def test_a_wrong_method_is_told_all_methods() -> None:
    async with gateway(FakeCluster(double)) as client:
        for path, methods in ALLOWED.items():
            for method in ("PUT", "TRACE", "PROPFIND"):
                response = await client.request(method, path)
                check_problem(response, 405, "method-not-allowed")
                assert response.headers["allow"] == methods, path


async def test_a_preflight_reaches_the_users_own_middleware() -> None:
    app = create_app(cast(Cluster, FakeCluster(double)), Settings(token="s3cret"))
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])
    preflight = {"origin": "https://a.example", "access-control-request-method": "GET"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.options("/functions", headers=preflight)
    assert response.headers["access-control-allow-origin"] == "https://a.example"


# Prefixes


@pytest.mark.parametrize("stripped", [True, False])
@pytest.mark.parametrize("by", ["setting", "header"])
async def test_addresses_start_with_the_proxys_prefix(by: str, stripped: bool) -> None:
    cluster, _ = site()
    options = {"root_path": "/a/jetmap/"} if by == "setting" else {}
    headers = {"x-forwarded-prefix": "/a/jetmap"} if by == "header" else {}
    below = "" if stripped else "/a/jetmap"
    async with gateway(cluster, **options) as client:
        client.headers.update(headers)
        posted = await client.post(f"{below}/jobs/double", json=[1, 2, 3])
        job = posted.json()
        assert posted.headers["location"] == f"/a/jetmap/jobs/{job['id']}"
        assert job["links"]["events"] == f"/a/jetmap/jobs/{job['id']}/events"
        status = await client.get(f"{below}/jobs/{job['id']}")
        assert status.json()["links"]["self"] == posted.headers["location"]
        page = await client.get(f"{below}/jobs/{job['id']}/results?limit=1&wait=9")
        assert page.headers["link"].startswith(f"</a/jetmap/jobs/{job['id']}/results?")
        listed = await client.get(f"{below}/jobs?limit=1")
        assert listed.json()["jobs"][0]["links"]["self"] == posted.headers["location"]
        assert (await client.post(f"{below}/map/double", json=[1])).json() == [2]
        preferred = await client.post(
            f"{below}/map/double", json=[1], headers={"prefer": "respond-async"}
        )
        assert preferred.headers["location"].startswith("/a/jetmap/jobs/")
        document = (await client.get(f"{below}/openapi.json")).json()
        assert document["servers"] == [{"url": "/a/jetmap"}]
        docs = (await client.get(f"{below}/docs")).text
        assert 'data-url="/a/jetmap/openapi.json"' in docs and 'src="/assets' not in docs
        assert (await client.get(f"{below}/assets/pages.css")).status_code == 200
        index = await client.get(f"{below}/" if below else "/")
        assert index.json()["functions"][0]["map"] == "/a/jetmap/map/double"


@pytest.mark.parametrize(
    ("prefix", "root", "path", "expected"),
    [
        ("/a", "", "/map/f", ("/a", "/a/map/f")),
        ("/a", "", "/a/map/f", ("/a", "/a/map/f")),
        ("/a", "", "/a", ("/a", "/a")),
        ("/a", "", "/ab", ("/a", "/a/ab")),
        ("/map", "", "/map/f", ("/map", "/map/map/f")),  # a prefix that looks like our own path
        ("/a", "/a", "/a/map/f", ("/a", "/a/map/f")),  # The server knows the prefix, too.
        ("/a", "/b", "/b/map/f", ("/a/b", "/a/b/map/f")),  # mounted
    ],
)
def test_the_prefix_is_added_once(
    prefix: str, root: str, path: str, expected: tuple[str, str]
) -> None:
    scope = under({"root_path": root, "path": path}, prefix)
    assert (scope["root_path"], scope["path"]) == expected


@pytest.mark.parametrize("value", ["jetmap", "//a", "/a b", "/a?b", "/../a", "https://a.example"])
def test_a_prefix_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="root_path must be a path such as"):
        Settings.load(root_path=value)


# Trailing slashes


# CORS

PAGE = {"origin": "https://page.example"}


async def test_refusals_can_be_read_by_allowed_pages() -> None:
    cluster = FakeCluster(double)
    options: dict[str, Any] = {
        "cors_origins": ["https://page.example"],
        "token": "s3cret",
        "max_body_bytes": 100,
    }
    known = {"authorization": "Bearer s3cret"}
    async with gateway(cluster, **options) as client:

        async def post(body: str, **headers: str) -> httpx.Response:
            json = {"content-type": "application/json"}
            return await client.post(
                "/map/double", content=body, headers=PAGE | known | json | headers
            )

        async def get(path: str, method: str = "GET") -> httpx.Response:
            return await client.request(method, path, headers=PAGE | known)

        refusals = [
            (401, await post("[1]", authorization="Bearer x")),
            (403, await post("[1]", host="evil.example")),
            (404, await get("/nothing")),
            (405, await get("/functions", "DELETE")),
            (406, await post("[1]", accept="image/png")),
            (413, await post(f"[{' ' * 100}]")),
            (415, await post("[1]", **{"content-type": "text/plain"})),
            (400, await post("[1")),
            (422, await post('["x"]')),
            (501, await get("/jobs")),
        ]
        cluster.refuse = TooManyMaps("enough", setting="max_open_maps", limit=1)
        refusals.append((429, await post("[1]")))
        cluster.refuse = RuntimeError("nobody foresaw this")
        refusals.append((500, await post("[1]")))
        other = await client.get("/nothing", headers=known | {"origin": "https://evil.example"})
    for status, response in refusals:
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "https://page.example", status
        assert "retry-after" in response.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in other.headers


async def test_a_fault_in_the_frameworks_own_routes_can_be_read_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = FakeCluster(double)
    monkeypatch.setattr(FakeCluster, "workers", property(lambda self: 1 / 0))
    async with gateway(cluster, cors_origins=["https://page.example"]) as client:
        response = await client.get("/workers", headers=PAGE)
    check_problem(response, 500, "internal")
    assert response.headers["access-control-allow-origin"] == "https://page.example"


async def test_preflights_allow_every_method_of_ours() -> None:
    async with gateway(FakeCluster(double), cors_origins=["https://page.example"]) as client:
        for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
            asked = PAGE | {"access-control-request-method": method}
            response = await client.options("/jobs/1", headers=asked)
            assert response.status_code == 200, method
