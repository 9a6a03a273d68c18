"""Pages for people: what a browser is given, and what it does with it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
import pytest

import jetmap_api
from browser import Browser, Tab
from fake_cluster import FakeCluster, gateway
from jetmap.client.cluster import Cluster
from jetmap.settings import Settings
from jobs_over_http import site
from over_http import double
from served import served

pytestmark = pytest.mark.anyio

T = TypeVar("T")

STATIC = Path(jetmap_api.__file__).parent / "static"
HTML = {"accept": "text/html"}


def odd(item: str, *, much: int) -> str:
    """Less <b>than</b> & 'quoted'."""
    return item * much


def power(n: int, *, exponent: int) -> int:
    """The power of a number."""
    return int(n**exponent)


async def test_the_first_page_for_people_and_for_programs() -> None:
    async with gateway(FakeCluster(double, odd), root_path="/a") as client:
        html = await client.get("/commands", headers=HTML)
        leads = await client.get("/", headers=HTML)
        data = await client.get("/", headers={"accept": "application/json"})
        plain = await client.get("/", headers={"accept": "*/*"})
    assert html.headers["content-type"].startswith("text/html")
    assert (leads.status_code, leads.headers["location"]) == (303, "/a/ui")
    assert leads.headers["vary"] == data.headers["vary"] == "accept"
    assert data.json() == plain.json()
    assert [f["name"] for f in data.json()["functions"]] == ["double", "odd"]
    assert data.json()["functions"][0]["jobs"] == "/a/jobs/double"
    assert "curl --json &#x27;[7, 8, 9]&#x27; http://localhost/a/map/double" in html.text
    assert "Less &lt;b&gt;than&lt;/b&gt; &amp; &#x27;quoted&#x27;." in html.text
    assert "kwargs=%7B%22much%22" in html.text  # what it needs is in the command
    for name in ("docs", "workers", "jobs", "metrics", "openapi.json"):
        assert f'href="/a/{name}"' in html.text
    assert "$" not in re.sub(r"\$JETMAP_TOKEN", "", html.text)


async def test_the_first_page_behind_a_token() -> None:
    async with gateway(FakeCluster(double), token="x") as client:
        client.headers["authorization"] = "Bearer x"
        guarded = (await client.get("/commands", headers=HTML)).text
    async with gateway(FakeCluster()) as client:
        empty = (await client.get("/", headers=HTML | {"host": 'localhost"><b>'})).status_code
        nothing = (await client.get("/commands", headers=HTML)).text
    assert "Authorization: Bearer $JETMAP_TOKEN" in guarded and "logout" in guarded
    assert "jetmap worker" in nothing and 'logout" hidden' in nothing
    assert empty == 403


async def test_an_odd_host_is_shown_as_text() -> None:
    options: dict[str, Any] = {"allowed_hosts": ["*"]}
    async with gateway(FakeCluster(double), **options) as client:
        page = await client.get("/commands", headers=HTML | {"host": "a'\"><script>b"})
    assert "<script>b" not in page.text and "&lt;script&gt;b" in page.text


async def test_pages_need_nothing_from_elsewhere() -> None:
    async with gateway(FakeCluster(double), token="x") as client:
        for path in ("/commands", "/docs", "/login"):
            headers = HTML | {"authorization": "Bearer x"} if path != "/login" else HTML
            page = await client.get(path, headers=headers)
            assert page.status_code == 200
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert "script-src 'self';" in policy
            assert page.headers["x-content-type-options"] == "nosniff"
            assert page.headers["cache-control"] == "no-store"
            assert "http" not in re.sub(r"http://localhost/\w+/double", "", page.text)
            loaded = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text)
            assert len(loaded) >= 2
            for name in loaded:  # without the token: the login page has them too
                asset = await client.get(name)
                assert asset.status_code == 200
                known = {"if-none-match": asset.headers["etag"]}
                again = await client.get(name, headers=known)
                assert (again.status_code, again.content) == (304, b"")
        for name in (
            "login.html",
            "../pages.py",
            "%2e%2e/pages.py",
            "swagger-ui",
            "",
            "nothing.js",
        ):
            response = await client.get(f"/assets/{name}", headers={"authorization": "Bearer x"})
            assert response.status_code == 404, name


async def test_there_is_no_other_documentation() -> None:
    async with gateway(FakeCluster(double)) as client:
        assert (await client.get("/redoc")).status_code == 404


def test_swagger_ui_is_what_its_makers_published() -> None:
    rows = re.findall(
        r"\| `(\S+)` \| `([0-9a-f]{64})` \|", (STATIC / "swagger-ui/README.md").read_text()
    )
    assert len(rows) == 2
    for name, digest in rows:
        assert hashlib.sha256((STATIC / "swagger-ui" / name).read_bytes()).hexdigest() == digest


# With a browser


@asynccontextmanager
async def shown(token: str | None = None, **settings: Any) -> AsyncIterator[str]:
    """The address of a gateway that a browser can reach."""
    cluster, _ = site(double, power)
    async with served(cast(Cluster, cluster), Settings(token=token, **settings)) as port:
        yield f"http://127.0.0.1:{port}"


async def aside(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


LOG_IN = """
document.querySelector('[name=token]').value = %r;
document.querySelector('form button').click();
"""
# Opens the first map's operation, and clicks Execute.
EXECUTE = """
(async () => {
  const until = async (what) => {
    for (let tries = 0; tries < 300; tries++) {
      const found = what();
      if (found) return found;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error("waited for " + what);
  };
  const block = await until(() => document.querySelector("#operations-map-map_double"));
  block.querySelector(".opblock-summary-control").click();
  (await until(() => block.querySelector(".execute"))).click();
  const cell = ".live-responses-table tbody .response-col_status";
  const status = await until(() => block.querySelector(cell));
  const body = block.querySelector(".live-responses-table pre, .live-responses-table code");
  return status.textContent.trim().slice(0, 3) + " " + body.textContent.replace(/\\s/g, "");
})()
"""


async def test_a_browser_behind_a_token(browser: Browser) -> None:
    async with shown("s3cret") as url:
        async with httpx.AsyncClient(base_url=url) as client:
            client.headers["authorization"] = "Bearer s3cret"
            job = (await client.post("/jobs/double", json=[1, 2])).json()

        def visit() -> None:
            tab = Tab(browser)
            tab.open(f"{url}/commands")
            tab.until("location.pathname === '/login' && document.readyState === 'complete'")
            tab.check_quiet(url)
            tab.do(LOG_IN % "wrong")
            tab.until("document.querySelector('.message')?.textContent.includes('not the gateway')")
            tab.do(LOG_IN % "s3cret")
            tab.until("location.pathname === '/commands'")
            tab.open(f"{url}/")
            assert tab.do("document.cookie") == ""  # HttpOnly
            tab.check_quiet(url)
            heard = tab.do(
                "new Promise((done) => {"
                f"const source = new EventSource('{job['links']['events']}');"
                "source.addEventListener('done', (e) => { source.close(); done(e.data); });"
                "source.onerror = () => done('error'); })"
            )
            assert '"done":2' in heard
            tab.do("document.querySelector('header form button').click()")
            tab.until("location.pathname === '/login' && document.readyState === 'complete'")

        await aside(visit)


@pytest.mark.slow
async def test_the_documentation_behind_a_token_runs_functions(browser: Browser) -> None:
    async with shown("s3cret") as url:

        def visit() -> None:
            tab = Tab(browser)
            tab.open(f"{url}/docs")
            tab.until("location.pathname === '/login' && document.readyState === 'complete'")
            tab.do(LOG_IN % "s3cret")
            tab.until("location.pathname === '/docs'")
            assert tab.do(EXECUTE).startswith("200 "), "the first click runs the function"
            assert "14" in tab.do(
                "document.querySelector('.live-responses-table .microlight, "
                ".live-responses-table pre').textContent"
            )
            tab.check_quiet(url)

        await aside(visit)


async def test_a_page_of_another_origin_reads_events_by_a_signed_address(browser: Browser) -> None:
    async with shown() as page, shown("s3cret", cors_origins=[page]) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            client.headers["authorization"] = "Bearer s3cret"
            job = (await client.post("/jobs/double", json=[1, 2])).json()
            made = await client.post(f"{job['links']['self']}/events/address")
        places = [f"{url}{made.json()['url']}", f"{url}{job['links']['events']}"]

        def listen() -> None:
            tab = Tab(browser)
            tab.open(f"{page}/healthz")  # a document without a policy
            heard = [
                tab.do(
                    f"new Promise((done) => {{ const source = new EventSource('{place}');"
                    "source.addEventListener('done', (e) => { source.close(); done(e.data); });"
                    "source.onerror = () => done('error'); })"
                )
                for place in places
            ]
            assert '"done":2' in heard[0] and heard[1] == "error"

        await aside(listen)
