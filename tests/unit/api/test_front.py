"""The outermost layers: the form of a request, and the log of requests."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from jetmap_api.front import AccessLog, Front, Refusals, RequestLines, Requests, forwarded_prefix
from jetmap_api.problems import Problem
from jetmap_api.security import HEAD, SIGNATURE

pytestmark = pytest.mark.anyio


def scope(path: str, method: str = "GET", query: bytes = b"", **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "query_string": query, "headers": named}


class App:
    """Answers 200 with one byte, and keeps the scopes that it was called with."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})


async def through(layer: Any, scope: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    await layer(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("path", "seen"), [("/jobs", "/jobs"), ("/jobs/", "/jobs"), ("/", "/"), ("/a//", "/a//")]
)
async def test_a_trailing_slash_is_removed(path: str, seen: str) -> None:
    app = App()
    await through(Front(app, ""), scope(path))
    assert app.scopes[0]["path"] == seen


async def test_a_prefix_becomes_the_root_path() -> None:
    app = App()
    await through(Front(app, ""), scope("/jobs", x_forwarded_prefix="/tools"))
    await through(Front(app, "/set"), scope("/jobs"))
    assert [(s["root_path"], s["path"]) for s in app.scopes] == [
        ("/tools", "/tools/jobs"),
        ("/set", "/set/jobs"),
    ]


def test_prefixes_of_a_chain_are_joined_and_odd_ones_ignored() -> None:
    assert forwarded_prefix(scope("/", x_forwarded_prefix="/a, /b/")) == "/a/b"
    assert forwarded_prefix(scope("/", x_forwarded_prefix="//evil.example")) == ""
    assert forwarded_prefix(scope("/")) == ""


async def test_head_is_served_as_get_without_a_body() -> None:
    app = App()
    sent = await through(Front(app, ""), scope("/jobs", "HEAD"))
    assert app.scopes[0]["method"] == "GET" and app.scopes[0][HEAD]
    assert [message.get("body") for message in sent] == [None, b""]


async def test_a_signature_leaves_the_query() -> None:
    app = App()
    await through(Front(app, ""), scope("/jobs/j/events", query=b"a=1&signature=s"))
    assert app.scopes[0]["query_string"] == b"a=1" and app.scopes[0][SIGNATURE] == "s"


async def test_requests_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jetmap_api.access")
    requests = Requests()
    await through(AccessLog(App(), requests, RequestLines(10)), scope("/jobs", query=b"secret=1"))
    assert requests.answered == {200: 1} and not requests.refused
    assert "GET /jobs 200" in caplog.text and "secret" not in caplog.text


def test_refusals_of_the_server_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jetmap_api.access")
    requests = Requests()
    Refusals(requests, RequestLines(10))("10.0.0.1", Problem(431, "head-too-large", "Too large"))
    assert requests.refused == {"head-too-large": 1}
    assert "10.0.0.1 - - 431 head-too-large" in caplog.text


def test_a_rate_of_zero_logs_nothing() -> None:
    assert not RequestLines(0).passes(logging.ERROR)
