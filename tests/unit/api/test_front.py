"""The first layers: the form of a request, and the short way of maps."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap_api.asgi import HEAD
from jetmap_api.front import Front, ShortWay, forwarded_prefix
from jetmap_api.security import SIGNATURE

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


def test_only_plain_paths_are_prefixes_and_those_of_a_chain_are_joined() -> None:
    def prefix(sent: str) -> str:
        return forwarded_prefix(scope("/", x_forwarded_prefix=sent))

    for plain in ("/a", "/a/", "/a, /b", "/a/b.c~d_e-f"):
        assert prefix(plain) == plain.replace(", ", "").rstrip("/")
    odd = ["", "/", "a", "//evil.example", "https://evil.example", "/../x", "/a/../b", "/a?b"]
    odd += ['/"><script>', "/\\evil", "/a\r\nx: y", "/" + "a" * 300, "/é"]
    assert {prefix(sent) for sent in odd} == {""} and forwarded_prefix(scope("/")) == ""


async def test_head_is_served_as_get_without_a_body() -> None:
    app = App()
    sent = await through(Front(app, ""), scope("/jobs", "HEAD"))
    assert app.scopes[0]["method"] == "GET" and app.scopes[0][HEAD]
    assert [message.get("body") for message in sent] == [None, b""]


async def test_a_signature_leaves_the_query() -> None:
    app = App()
    await through(Front(app, ""), scope("/jobs/j/events", query=b"a=1&signature=s"))
    assert app.scopes[0]["query_string"] == b"a=1" and app.scopes[0][SIGNATURE] == "s"


async def test_maps_take_the_short_way_and_all_else_the_long_one() -> None:
    app, served = App(), []

    async def serve(name: str, scope: Any, receive: Any, send: Any) -> None:
        served.append(name)

    way = ShortWay({"/map/": serve}, app)
    for method, path in (
        ("POST", "/map/f"),
        ("GET", "/map/f"),
        ("POST", "/map/f/x"),
        ("POST", "/map/"),
    ):
        await through(way, scope(path, method))
    assert served == ["f"]
    assert [s["path"] for s in app.scopes] == ["/map/f", "/map/f/x", "/map/"]
