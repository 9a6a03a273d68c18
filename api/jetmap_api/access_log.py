"""The log of requests, and their counters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable
from http import HTTPStatus

from jetmap.logs import Limited, harmless

from .asgi import REASON, App, AsgiMessage, Receive, Scope, Send, route_path
from .hosts import OPEN_PATHS
from .problems import Problem

logger = logging.getLogger("jetmap_api.access")

# Seconds between lines that count the requests left out.
TELL_SECONDS = 5.0
# Characters of a path in a line.
PATH_CHARACTERS = 200
# Paths that probes and scrapers ask for every few seconds: shown with --log-level debug only.
QUIET_PATHS = OPEN_PATHS | {"/metrics", "/metrics/pool"}


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

        def noting(message: AsgiMessage) -> Awaitable[None]:
            nonlocal status, reason
            if message["type"] == "http.response.start":
                status = message["status"]
                reason = message.pop(REASON, "")
            return send(message)

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
