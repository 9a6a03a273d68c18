"""Sessions and signed addresses, which browsers send in place of the token."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from fake_cluster import FakeCluster, gateway
from jetmap_api.login import MOST_FORM, address_of, place_of
from jetmap_api.security import cookie, is_same_origin, login_address, take_signature
from jobs_over_http import site, submit, until_over
from over_http import check_problem, double

pytestmark = pytest.mark.anyio

TOKEN = "s3cret"
BEARER = {"authorization": f"Bearer {TOKEN}"}
PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-mode": "navigate"}
HERE = {"origin": "http://localhost"}


async def log_in(client: httpx.AsyncClient, token: str = TOKEN, **form: str) -> httpx.Response:
    return await client.post("/login", data={"token": token, **form}, headers=HERE)


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    one, other = {"client": ("2001:db8::1", 1)}, {"client": ("2001:db8::ffff", 2)}
    assert address_of(one) == address_of(other) != address_of({"client": ("2001:db9::1", 1)})
    assert address_of({"client": None}) == address_of({})


# Where to go next


@pytest.mark.parametrize(
    "place",
    [
        *("//evil.example", "https://evil.example/", "/\\evil.example", "\\\\evil.example", ""),
        *("evil.example", "javascript:alert(1)", "/\t/evil.example", "/\r\nset-cookie: a=b"),
        *(" /docs", "/docs\x00", "/é", "///evil.example", "http:/evil.example", "/a\\b", "?/"),
    ],
)
def test_the_login_leads_to_no_other_site(place: str) -> None:
    assert place_of({"root_path": "/a"}, place) == "/a/"


@pytest.mark.parametrize("place", ["/", "/docs", "/a/jobs?state=running#x", "/%2F%2Fevil.example"])
def test_the_login_leads_back(place: str) -> None:
    assert place_of({}, place) == place


# The login


async def test_a_browser_logs_in_and_out() -> None:
    cluster, _ = site()
    async with gateway(cluster, token=TOKEN) as client:
        turned = await client.get("/docs?a=b", headers=PAGE)
        assert (turned.status_code, turned.headers["cache-control"]) == (303, "no-store")
        place = urlsplit(turned.headers["location"])
        assert (place.path, parse_qs(place.query)) == ("/login", {"next": ["/docs?a=b"]})
        form = await client.get(turned.headers["location"], headers=PAGE)
        assert form.status_code == 200 and 'value="/docs?a=b"' in form.text
        wrong = await log_in(client, "wrong", next="/docs")
        assert wrong.status_code == 401 and "not the gateway" in wrong.text
        assert not client.cookies and 'value="/docs"' in wrong.text
        right = await log_in(client, next="/docs?a=b")
        assert (right.status_code, right.headers["location"]) == (303, "/docs?a=b")
        kept = right.headers["set-cookie"]
        assert "; HttpOnly; SameSite=Strict" in kept and "; Path=/;" in kept
        assert "Secure" not in kept and "Max-Age=43200" in kept
        for path in ("/docs", "/", "/functions", "/jobs"):
            assert (await client.get(path)).status_code == 200
        again = await client.get("/login?next=/docs")
        assert (again.status_code, again.headers["location"]) == (303, "/docs")
        posted = await client.post("/map/double", json=[1], headers=HERE)
        assert posted.json() == [2]
        job = (await client.post("/jobs/double", json=[1], headers=HERE)).json()
        assert (await client.delete(job["links"]["self"], headers=HERE)).status_code == 204
        out = await client.post("/logout", headers=HERE)
        assert out.status_code == 303 and "Max-Age=0" in out.headers["set-cookie"]
        assert (await client.get("/functions")).status_code == 401


async def test_a_session_and_the_token_are_one_caller() -> None:
    cluster, jobs = site()
    async with gateway(cluster, token=TOKEN) as client:
        await submit(client, "double", [1], **BEARER)
        await log_in(client)
        await submit(client, "double", [1], **HERE)
    first, second = (begun["caller"] for begun in jobs.begun)
    assert first == second != "anonymous"


async def test_the_cookie_is_secure_behind_https_and_bound_to_the_prefix() -> None:
    async with gateway(FakeCluster(double), token=TOKEN) as client:
        headers = {"x-forwarded-proto": "https", "x-forwarded-prefix": "/a"} | HERE
        response = await client.post("/login", data={"token": TOKEN}, headers=headers)
        plain = await client.post("https://localhost/login", data={"token": TOKEN}, headers=HERE)
    assert "; Path=/a;" in response.headers["set-cookie"]
    assert response.headers["set-cookie"].endswith("; Secure")
    assert response.headers["location"] == "/a/"
    assert plain.headers["set-cookie"].endswith("; Secure")


async def test_logins_are_bounded() -> None:
    async with gateway(FakeCluster(double), token=TOKEN) as client:
        many = [await log_in(client, "wrong") for _ in range(11)]
        locked = await log_in(client)
        large = await client.post("/login", data={"token": "x" * MOST_FORM}, headers=HERE)
        typed = await client.post("/login", json={"token": TOKEN}, headers=HERE)
    assert [r.status_code for r in many] == [401] * 10 + [429]
    assert locked.status_code == 429 and 0 < int(locked.headers["retry-after"]) <= 6
    check_problem(large, 413, "limit-exceeded")
    check_problem(typed, 415, "unsupported-media-type")


async def test_without_a_token_nobody_needs_to_log_in() -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.get("/login?next=/docs")
    assert (response.status_code, response.headers["location"]) == (303, "/docs")


async def test_programs_are_not_led_to_the_login_page() -> None:
    async with gateway(FakeCluster(double), token=TOKEN) as client:
        for headers in ({}, {"accept": "*/*"}, {"accept": "text/html", "sec-fetch-mode": "cors"}):
            check_problem(await client.get("/functions", headers=headers), 401, "unauthorized")
        posted = await client.post("/map/double", json=[1], headers=PAGE)
        check_problem(posted, 401, "unauthorized")


def test_the_login_page_leads_back_to_any_path() -> None:
    scope = {"path": "/a/é%/x y", "root_path": "/a", "query_string": b"b=%2F"}
    address = login_address(scope)
    place = parse_qs(urlsplit(address).query)["next"][0]
    assert place == "/a/%C3%A9%25/x%20y?b=%2F" and place_of({}, place) == place


# Requests of other sites

ELSEWHERE: list[dict[str, str]] = [
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"},
    {"sec-fetch-site": "cross-site"},
    {"origin": "https://evil.example"},
    {"origin": "http://localhost:3000"},
    {"origin": "null"},
    {"origin": "http://[", "sec-fetch-site": "odd"},
    {},
]


@pytest.mark.parametrize("headers", ELSEWHERE)
async def test_a_session_changes_nothing_for_other_sites(headers: dict[str, str]) -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster, token=TOKEN) as client:
        await log_in(client)
        job = await submit(client, "double", [1], **HERE)
        place = job["links"]["self"]
        for method, path in (
            ("POST", "/map/double"),
            ("POST", "/jobs/double"),
            ("POST", f"{place}/cancel"),
            ("POST", f"{place}/events/address"),
            ("DELETE", place),
        ):
            response = await client.request(method, path, json=[1], headers=headers)
            check_problem(response, 403, "cross-site-request")
        login = await client.post("/login", data={"token": TOKEN}, headers=headers)
        logout = await client.post("/logout", headers=headers)
        assert (login.status_code, logout.status_code) == (403, 403)
        by_token = await client.post(
            f"{place}/cancel", headers=headers | BEARER
        )  # A program knows the token, wherever it runs.
        assert by_token.status_code == 202
    assert len(jobs.records) == 1


@pytest.mark.parametrize(
    ("method", "headers", "same"),
    [
        ("GET", {}, True),  # over plain http, browsers say nothing of a page's own GET
        ("GET", {"sec-fetch-site": "same-origin"}, True),
        ("GET", {"sec-fetch-site": "none"}, True),
        ("GET", {"sec-fetch-site": "cross-site"}, False),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, False),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}, True),
        ("POST", {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}, False),
        ("GET", {"origin": "https://evil.example"}, False),
        ("POST", {"sec-fetch-site": "same-origin", "origin": "https://public.example"}, True),
        ("POST", {"origin": "https://LOCALHOST:443", "host": "localhost"}, True),
        ("POST", {"origin": "http://localhost:8000", "host": "localhost:8000"}, True),
        ("POST", {"origin": "http://localhost:8000", "host": "localhost"}, False),
        ("POST", {"origin": "http://[::1]:8000", "host": "[::1]:8000"}, True),
        ("POST", {"origin": "https://p.example", "x-forwarded-host": "p.example"}, True),
        ("POST", {"origin": "https://p.example", "x-forwarded-host": "p.example, in:80"}, True),
        ("POST", {"origin": "https://in", "x-forwarded-host": "p.example, in:80"}, False),
        ("POST", {"origin": "null", "host": ""}, False),
        ("DELETE", {"origin": "file://localhost", "host": "localhost"}, False),
    ],
)
def test_the_same_origin(method: str, headers: dict[str, str], same: bool) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert is_same_origin({"method": method, "headers": raw}) is same


def test_a_cookie_among_others() -> None:
    def found(*values: str) -> str | None:
        return cookie({"headers": [(b"cookie", value.encode()) for value in values]}, "a")

    assert found("b=1; a=2; c=3") == found("b=1", "a=2") == "2"
    assert found("aa=1;ab; =a") is None
    assert found("a=" + "x" * 1000) is None


# Signed addresses


async def test_a_signed_address_opens_one_jobs_events() -> None:
    cluster, _ = site()
    async with gateway(cluster, token=TOKEN) as client:
        job, other = [await submit(client, "double", [n], **BEARER) for n in (1, 2)]
        client.headers.update(BEARER)
        await until_over(client, job["id"])
        made = await client.post(f"{job['links']['self']}/events/address?ttl=60")
        del client.headers["authorization"]
        signed = made.json()["url"]
        assert made.status_code == 200 and made.headers["cache-control"] == "no-store"
        assert made.json()["expires"].endswith("Z")
        events = await client.get(signed)
        assert events.status_code == 200 and "event: done" in events.text
        last = events.text.rpartition("id: ")[2].split("\n")[0]
        assert (await client.get(f"{signed}&last_event_id={last}")).status_code == 204
        assert (await client.head(signed)).status_code == 200
        signature = signed.partition("?")[2]
        for method, path in (
            ("GET", other["links"]["events"]),
            ("GET", job["links"]["self"]),
            ("GET", job["links"]["results"]),
            ("GET", "/jobs"),
            ("GET", "/functions"),
            ("POST", job["links"]["events"]),
            ("POST", f"{job['links']['self']}/cancel"),
            ("POST", f"{job['links']['self']}/events/address"),
            ("DELETE", job["links"]["self"]),
        ):
            response = await client.request(method, f"{path}?{signature}")
            check_problem(response, 401, "unauthorized")
        for broken in (signed[:-2], signed.replace("signature=", "signature=9"), signed + "x"):
            check_problem(await client.get(broken), 401, "unauthorized")
        check_problem(
            await client.post(f"{job['links']['self']}/events/address"), 401, "unauthorized"
        )


def test_a_servers_access_log_does_not_show_signatures() -> None:
    scope: dict[str, Any] = {"query_string": b"a=1&signature=secret&b=2&signature=more"}
    take_signature(scope)
    assert scope["query_string"] == b"a=1&b=2"
