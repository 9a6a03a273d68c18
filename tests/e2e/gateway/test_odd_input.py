"""No input is a fault of the gateway: odd bytes in headers, paths, queries and bodies."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any, cast

import pytest
from starlette.types import Message

from fake_cluster import FakeCluster, gateway
from hypotheses import sampled
from jetmap.client.cluster import Cluster
from jetmap.settings import Settings
from jetmap_api import create_app
from jobs_over_http import echo, site, submit, until_over
from over_http import check_problem, double
from served import served
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

ODD: dict[str, bytes] = {
    "nothing": b"",
    "spaces": b"   ",
    "a byte that is not UTF-8": b"\xff",
    "a cut character": b"\xe2\x82",
    "a surrogate": b"\xed\xa0\x80",
    "NUL": b"a\x00b",
    "controls": b"\x01\x1b[31m\x7f",
    "latin": b"caf\xe9",
    "a huge number": b"9" * 5000,
    "a negative number": b"-1",
    "not a number": b"nan",
    "infinity": b"inf",
    "1e999": b"1e999",
    "separators": b";,=;q=,=;\"'",
    "a long text": b"x" * 20_000,
    "a version": b"application/openmetrics-text;version=x.y;escaping=odd;q=z",
    "brackets": b"[" * 3000,
    "digits of another script": "٣".encode(),
}
HEADERS = (
    *("accept", "authorization", "content-encoding", "content-length", "content-type", "cookie"),
    *("host", "idempotency-key", "if-none-match", "last-event-id", "origin", "prefer"),
    *("sec-fetch-site", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-proto"),
    *("access-control-request-method", "access-control-request-headers", "user-agent"),
)


async def ask(
    app: Any,
    method: str,
    path: str,
    *,
    query: bytes = b"",
    headers: dict[str, bytes] | None = None,
    body: bytes = b"",
) -> tuple[int, bytes]:
    """Status and body of one request, whose bytes are not looked at before."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": query,
        "root_path": "",
        "headers": [
            (name.encode(), value)
            for name, value in {"host": b"localhost", **(headers or {})}.items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    incoming = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []
    ended = asyncio.Event()

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ended.set()

    async with asyncio.timeout(PATIENCE):
        await app(scope, receive, send)
    assert sent[0]["type"] == "http.response.start"
    status: int = sent[0]["status"]
    whole = b"".join(message.get("body", b"") for message in sent[1:])
    media = dict(sent[0]["headers"]).get(b"content-type", b"")
    if status >= 400 and method != "HEAD" and not media.startswith(b"text/"):
        assert media == b"application/problem+json"
        assert json.loads(whole)["status"] == status
    return status, whole


def endpoints(job: str) -> list[tuple[str, str, bytes]]:
    return [
        ("POST", "/map/double", b"[1]"),
        ("POST", "/jobs/double", b"[1]"),
        ("GET", f"/jobs/{job}", b""),
        ("GET", f"/jobs/{job}/results", b""),
        ("GET", f"/jobs/{job}/events", b""),
        ("POST", f"/jobs/{job}/events/address", b""),
        ("POST", f"/jobs/{job}/cancel", b""),
        ("GET", "/jobs", b""),
        ("GET", "/", b""),
        ("GET", "/functions/double", b""),
        ("GET", "/metrics", b""),
        ("POST", "/login", b"token=x"),
        ("GET", "/login", b""),
        ("GET", "/assets/pages.css", b""),
    ]


async def ready(**settings: Any) -> tuple[Any, str]:
    """A gateway's application, and a job of it that is over."""
    cluster, _ = site()
    app = create_app(cast(Cluster, cluster), Settings(**settings))
    async with gateway(cluster) as client:
        job = await submit(client, "double", [1, 2, 3])
        await until_over(client, job["id"])
    return app, job["id"]


async def test_a_header_of_odd_bytes() -> None:
    app, job = await ready(token="x", cors_origins=["https://a.example"])
    looked_at = ("double", "events", "metrics", "login")
    asked = [e for e in endpoints(job) if e[1].rsplit("/")[-1] in looked_at]
    for header, (method, path, body), (odd, value) in sampled(
        itertools.product(HEADERS, asked, ODD.items())
    ):
        headers = {"content-type": b"application/json", "authorization": b"Bearer x"}
        headers |= {header: value}
        status, _ = await ask(app, method, path, headers=headers, body=body)
        assert status < 500, (method, path, header, odd)


# By the last part of the path.
TAKEN = {
    "double": ("errors", "order", "timeout", "kwargs", "ttl", "reserve", "unknown"),
    "jobs": ("state", "function", "limit", "after", "unknown"),
    "results": ("start", "limit", "wait", "unknown"),
    "events": ("last_event_id", "signature", "unknown"),
    "address": ("ttl", "unknown"),
    "login": ("next", "unknown"),
}


async def test_a_parameter_of_odd_bytes() -> None:
    app, job = await ready()
    json_type = {"content-type": b"application/json"}
    grid = [
        (*asked, name, odd, value)
        for asked in endpoints(job)
        for name in TAKEN.get(asked[1].rsplit("/")[-1], ())
        for odd, value in ODD.items()
    ]
    for method, path, body, name, odd, value in sampled(grid):
        escaped = b"".join(b"%%%02x" % byte for byte in value[:5000])
        for given in (value, escaped, escaped + b"%zz"):
            query = name.encode() + b"=" + given
            status, _ = await ask(app, method, path, query=query, headers=json_type, body=body)
            assert status < 500, (method, path, odd, query[:60])


NAMES = ("\x00", "a\x00b", "..", ".", "a/b", "\ufffd", "é", "*", ">", "a b", "x" * 9000, "%", "\n")


async def test_a_path_of_odd_characters() -> None:
    app, _ = await ready()
    for method, path in itertools.chain.from_iterable(map(paths, NAMES)):
        json_type = {"content-type": b"application/json"}
        status, _ = await ask(app, method, path, headers=json_type, body=b"[1]")
        assert status < 500, (method, path)


def paths(name: str) -> tuple[tuple[str, str], ...]:
    return (
        ("POST", f"/map/{name}"),
        ("POST", f"/jobs/{name}"),
        ("GET", f"/jobs/{name}"),
        ("DELETE", f"/jobs/{name}"),
        ("GET", f"/jobs/{name}/results"),
        ("GET", f"/jobs/{name}/events"),
        ("POST", f"/jobs/{name}/events/address"),
        ("POST", f"/jobs/{name}/cancel"),
        ("GET", f"/functions/{name}"),
        ("GET", f"/assets/{name}"),
        ("GET", f"/{name}"),
        ("HEAD", f"/jobs/{name}"),
        ("OPTIONS", f"/jobs/{name}"),
    )


def deep(opening: str, closing: str, depth: int = 100_000) -> bytes:
    return (opening * depth + closing * depth).encode()


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \t\r\n" * 150_000,
    "much white space in an array": b"[" + b" " * 600_000 + b"]",
    "much white space and a bracket": b" " * 600_000 + b"[",
    "a value after much white space": b" " * 600_000 + b"1",
    "an open array of much white space": b"[" + b"\n" * 600_000,
    "commas": b"[" + b"," * 600_000 + b"]",
    "NUL": b"\x00" * 600_000,
    "a byte order mark": b"\xef\xbb\xbf[1]",
    "not UTF-8": b'["\xff"]',
    "much that is not UTF-8": b'["' + b"\xff" * 600_000 + b'"]',
    "an escaped surrogate": b'["\\ud800"]',
    "a huge number": b"[" + b"9" * 5000 + b"]",
    "a huge exponent": b"[1e999999]",
    "deep arrays": deep("[", "]"),
    "deep objects": b"[" + deep('{"a":', "}") + b"]",
    "open brackets": b"[" * 600_000,
    "not a number": b"[NaN]",
    "an object": b"{}",
    "a half item": b'[{"a": 1, "b"',
}


@pytest.mark.parametrize("media", ["json", "jsonl", "msgpack"])
async def test_a_body_of_odd_bytes(media: str) -> None:
    cluster, _ = site(echo)
    app = create_app(cast(Cluster, cluster), Settings())
    headers = {"content-type": f"application/{media}".encode()}
    for path, accept in (
        ("/map/echo", b"application/json"),
        ("/map/double", b"text/event-stream"),
        ("/jobs/echo", b"application/json"),
    ):
        asked = headers | {"accept": accept}
        for odd, body in BODIES.items():
            status, _ = await ask(app, "POST", path, headers=asked, body=body)
            assert status < 500, (path, odd)


async def test_the_two_that_were_found() -> None:
    cluster, _ = site()
    app = create_app(cast(Cluster, cluster), Settings())
    async with gateway(cluster) as client:
        job = await submit(client, "double", [1])
        spaces = await client.post(
            "/map/double", content=b" " * 600_000, headers={"content-type": "application/json"}
        )
    problem = check_problem(spaces, 400, "malformed-body")
    assert problem["detail"].startswith("the body is empty")
    status, body = await ask(
        app, "GET", f"/jobs/{job['id']}/events", headers={"last-event-id": b"\xff"}
    )
    assert (status, json.loads(body)["parameter"]) == (400, "Last-Event-ID")


async def test_odd_request_lines_on_a_socket() -> None:
    async with served(cast(Cluster, FakeCluster(double))) as port:
        for target in (
            b"/jobs/\xff",
            b"/jobs/%",
            b"/jobs/%zz",
            b"/jobs/%00",
            b"/jobs/%2F",
            b"/jobs/%ff%fe",
            b"/jobs/%ed%a0%80",
            b"/functions/%00",
            b"/jobs?state=\xff",
            b"/jobs?%ff=%00",
            b"/map/%2e%2e%2ffunctions",
            b"//",
            b"/?" + b"a" * 8000,
            b"http://localhost/functions",
            b"*",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            answer = await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
            status = int(answer.split(b" ", 2)[1])
            assert status < 500 or status == 501, target  # 501: there is no store of jobs
