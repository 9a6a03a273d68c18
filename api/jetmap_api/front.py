"""The first layers of the gateway: the form that a request takes, and the short way of maps.

A proxy may serve the gateway below a prefix. It says so in ``X-Forwarded-Prefix``, or the setting
``root_path`` does. Either way ASGI's ``root_path`` holds it from here on, and every address that
the gateway writes starts with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jetmap.background import beside
from jetmap.settings import ROOT_PATH

from .asgi import HEAD, App, AsgiMessage, Receive, Scope, Send, route_path
from .security import take_signature

# First segments of the gateway's own paths. A path that starts with one of them has no prefix.
OWN = frozenset(
    {
        *("map", "jobs", "functions", "workers", "healthz", "readyz", "metrics", "scale"),
        *("docs", "openapi.json", "login", "logout", "assets", "ui", "commands"),
    }
)


class Front:
    """Bring a request into the form that all further layers expect. root_path: the setting."""

    def __init__(self, app: App, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # (Not a coroutine, as the other layers of the short way: each would be resumed each time.)
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        if b"signature=" in scope["query_string"]:
            take_signature(scope)
        prefix = self._root_path or forwarded_prefix(scope)
        if prefix:
            scope = under(scope, prefix)
        path = scope["path"]
        if path[-1:] == "/" or scope.get("root_path"):
            route = route_path(scope)
            if route == "":
                scope = {**scope, "path": path + "/"}
            elif len(route) > 1 and route[-1] == "/" and route[-2] != "/":
                scope = {**scope, "path": path[:-1]}
        if scope["method"] == "HEAD":
            return serve_head(self._app, scope, receive, send)
        return self._app(scope, receive, send)


def is_short(scope: Scope) -> bool:
    """Return True if the short way may take the request; else the layers after it do."""
    return scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path")


class ShortWay:
    """Serve ``POST /map/{function}`` and ``/jobs/{function}`` directly; pass everything else on.

    serve: endpoints by the beginning of the path; each takes the function's name.
    """

    def __init__(
        self,
        serve: dict[str, Callable[[str, Scope, Receive, Send], Awaitable[None]]],
        app: App,
    ) -> None:
        self._serve = serve
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = route_path(scope)
            for beginning, serve in self._serve.items():
                if path.startswith(beginning):
                    name = path[len(beginning) :]
                    if name and "/" not in name:
                        return serve(name, scope, receive, send)
        return self._app(scope, receive, send)


def forwarded_prefix(scope: Scope) -> str:
    """Read ``X-Forwarded-Prefix`` if it is a plain path.

    Anybody may send it, because it only changes the addresses in the answer to that one request.
    """
    if b"x-forwarded-prefix" not in dict(scope["headers"]):
        return ""
    for name, value in scope["headers"]:
        if name == b"x-forwarded-prefix":
            # Each of a chain of proxies adds its own; the first one is the outermost.
            parts = [part.strip().rstrip("/") for part in value.decode("latin-1").split(",")]
            prefix = "".join(parts)
            return prefix if ROOT_PATH.fullmatch(prefix) else ""
    return ""


def under(scope: Scope, prefix: str) -> Scope:
    """Move a request below a prefix, whether or not the proxy has removed it from the path."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    if root == prefix or root.startswith(prefix + "/"):  # The server knows it, too.
        return scope
    kept = path == prefix or path.startswith(prefix + "/")
    if kept and not root and prefix.split("/")[1] not in OWN:
        return {**scope, "root_path": prefix}
    return {**scope, "root_path": prefix + root, "path": prefix + path}


async def serve_head(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer HEAD with the status and headers of GET.

    The server still sees HEAD in its own scope. A stream ends after its headers, as if the client
    had left.
    """
    over = asyncio.Event()

    async def heading(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            await send(message)
        elif message["type"] == "http.response.body" and not over.is_set():
            over.set()
            await send({"type": "http.response.body", "body": b""})

    async def receiving() -> AsgiMessage:
        if over.is_set():
            return {"type": "http.disconnect"}
        async with beside(receive()) as [coming], beside(over.wait()) as [ended]:
            await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else {"type": "http.disconnect"}

    await app({**scope, "method": "GET", HEAD: True}, receiving, heading)
