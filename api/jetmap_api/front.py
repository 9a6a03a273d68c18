"""The outermost layers of the gateway: the log of requests, and the form that a request takes.

A proxy may serve the gateway below a prefix. It says so in ``X-Forwarded-Prefix``, or the setting
``root_path`` does. Either way ASGI's ``root_path`` holds it from here on, and every address that
the gateway writes starts with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from http import HTTPStatus

from jetmap.logs import Limited, harmless
from jetmap.settings import ROOT_PATH

from .asgi import REASON, App, Message, Receive, Scope, Send
from .problems import Problem
from .security import HEAD, OPEN_PATHS, route_path, take_signature

logger = logging.getLogger("jetmap_api.access")

# Seconds between lines that count the requests left out.
TELL_SECONDS = 5.0
# Characters of a path in a line.
PATH_CHARACTERS = 200
# Paths that probes and scrapers ask for every few seconds: shown with --log-level debug only.
QUIET_PATHS = OPEN_PATHS | {"/metrics", "/metrics/pool"}

# First segments of the gateway's own paths. A path that starts with one of them has no prefix.
OWN = frozenset(
    {
        *("map", "jobs", "functions", "workers", "healthz", "readyz", "metrics", "scale"),
        *("docs", "openapi.json", "login", "logout", "assets", "ui"),
    }
)


class AccessLog:
    """Log method, path, status and duration of each request.

    Its query and headers are not logged, because they may hold secrets.
    """

    def __init__(self, app: App, requests: Requests, lines: RequestLines) -> None:
        self._app = app
        self._requests = requests
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, reason = 0, ""

        async def noting(message: Message) -> None:
            nonlocal status, reason
            if message["type"] == "http.response.start":
                status = message["status"]
                reason = message.pop(REASON, "")
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if status >= 400 and not reason:
                reason = reason_of(status)
            self._requests.count(status, reason)
            self._log(scope, status, reason, time.perf_counter() - began)

    def _log(self, scope: Scope, status: int, reason: str, seconds: float) -> None:
        quiet = scope["method"] != "POST" and route_path(scope) in QUIET_PATHS
        level = logging.DEBUG if quiet else logging.INFO
        if not self._lines.passes(level):
            return
        client = scope.get("client")
        what = f"{harmless(scope['method'])[:16]} {harmless(scope['path'])[:PATH_CHARACTERS]}"
        end = f" {reason}" if reason else ""
        self._lines.write(
            level, client and client[0], what, status, f"{end} {1000 * seconds:.1f} ms"
        )


class Front:
    """Bring a request into the form that all further layers expect. root_path: the setting."""

    def __init__(self, app: App, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
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
            await serve_head(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)


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

    async def heading(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
        elif message["type"] == "http.response.body" and not over.is_set():
            over.set()
            await send({"type": "http.response.body", "body": b""})

    async def receiving() -> Message:
        if over.is_set():
            return {"type": "http.disconnect"}
        coming = asyncio.ensure_future(receive())
        ended = asyncio.ensure_future(over.wait())
        try:
            await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else {"type": "http.disconnect"}
        finally:
            coming.cancel()
            ended.cancel()
            await asyncio.wait({coming, ended})

    await app({**scope, "method": "GET", HEAD: True}, receiving, heading)


class Requests:
    """The counters of a gateway's requests.

    answered: by status. refused: by reason, which is the end of the problem's type.
    """

    def __init__(self) -> None:
        self.answered: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()

    def count(self, status: int, reason: str) -> None:
        self.answered[status] += 1
        if reason:
            self.refused[reason] += 1


class RequestLines:
    """The lines of the access log.

    rate: lines a second, 0 for none. Further requests are counted, and their number is logged.
    """

    def __init__(self, rate: int) -> None:
        self._is_on = rate > 0
        self._lines = Limited(logger, "requests", rate=max(1, rate), burst=2 * max(1, rate))
        self._telling: asyncio.TimerHandle | None = None

    def passes(self, level: int) -> bool:
        """Decide whether to write the next line; if there are too many, count it."""
        if not self._is_on:
            return False
        if self._lines.passes(level):
            return True
        if self._telling is None and self._lines.has_left_out:
            self._telling = asyncio.get_running_loop().call_later(
                TELL_SECONDS, self.report_left_out
            )
        return False

    def write(self, level: int, client: object, what: str, status: int, end: str) -> None:
        """Log a request that passes.

        what: its method and path. end: the reason of its refusal, and its duration.
        """
        self._lines.write(level, "%s %s %s%s", client or "-", what, status or "no answer", end)

    def report_left_out(self) -> None:
        """Log how many lines were left out."""
        self._telling = None
        self._lines.report_left_out()


class Refusals:
    """Count and log what the server refuses before there is a request.

    Such as heads that are too large or too slow, bytes that are not HTTP, too many connections.
    """

    def __init__(self, requests: Requests, lines: RequestLines) -> None:
        self._requests = requests
        self._lines = lines

    def __call__(self, client: str | None, problem: Problem) -> None:
        self._requests.count(problem.status, problem.slug)
        if self._lines.passes(logging.INFO):
            self._lines.write(logging.INFO, client, "- -", problem.status, f" {problem.slug}")


def reason_of(status: int) -> str:
    """Name a reason for a refusal that has none."""
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "-")
    except ValueError:
        return "client-left" if status == 499 else "other"
