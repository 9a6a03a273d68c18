"""One log line for each request, and counters of what was answered and refused."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from http import HTTPStatus

from jetmap.logs import Limited, harmless

from .asgi import REASON, App, Message, Receive, Scope, Send
from .problems import Problem
from .security import OPEN_PATHS, route_path

logger = logging.getLogger(__name__)

TELL_SECONDS = 5.0  # After which the number of requests that were left out is told.
PATH_CHARACTERS = 200  # Of a path in a line.
# Asked every few seconds by probes and scrapers: only seen with --log-level debug.
QUIET_PATHS = OPEN_PATHS | {"/metrics", "/metrics/pool"}


class Requests:
    """Counters of a gateway. answered: requests by status. refused: by reason, the end of the
    problem's type."""

    def __init__(self) -> None:
        self.answered: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()

    def count(self, status: int, reason: str) -> None:
        self.answered[status] += 1
        if reason:
            self.refused[reason] += 1


class RequestLines:
    """The lines of the access log.

    rate: lines a second; more are counted, and their number is logged. 0: none.
    """

    def __init__(self, rate: int) -> None:
        self._is_on = rate > 0
        self._lines = Limited(logger, "requests", rate=max(1, rate), burst=2 * max(1, rate))
        self._telling: asyncio.TimerHandle | None = None

    def passes(self, level: int) -> bool:
        """Whether the next line is to be written; if there are too many, it is counted."""
        if not self._is_on:
            return False
        if self._lines.passes(level):
            return True
        if self._telling is None and self._lines.has_left_out:
            self._telling = asyncio.get_running_loop().call_later(TELL_SECONDS, self.tell)
        return False

    def write(self, level: int, client: object, what: str, status: int, end: str) -> None:
        """Log a request that passes. what: its method and path. end: why it was refused, and its
        time."""
        self._lines.write(level, "%s %s %s%s", client or "-", what, status or "no answer", end)

    def tell(self) -> None:
        """Log how many lines were left out."""
        self._telling = None
        self._lines.tell()


class Refusals:
    """What the server refuses before there is a request: heads too large or too slow, bytes that
    are not HTTP, too many connections."""

    def __init__(self, requests: Requests, lines: RequestLines) -> None:
        self._requests = requests
        self._lines = lines

    def __call__(self, client: str | None, problem: Problem) -> None:
        self._requests.count(problem.status, problem.slug)
        if self._lines.passes(logging.INFO):
            self._lines.write(logging.INFO, client, "- -", problem.status, f" {problem.slug}")


class AccessLog:
    """Logs method, path, status and duration of each request, never its query or headers, which
    may hold secrets."""

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
        level = logging.DEBUG if route_path(scope) in QUIET_PATHS else logging.INFO
        if not self._lines.passes(level):
            return
        client = scope.get("client")
        what = f"{harmless(scope['method'])[:16]} {harmless(scope['path'])[:PATH_CHARACTERS]}"
        end = f" {reason}" if reason else ""
        self._lines.write(
            level, client and client[0], what, status, f"{end} {1000 * seconds:.1f} ms"
        )


def reason_of(status: int) -> str:
    """A reason for a refusal that names none."""
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "-")
    except ValueError:
        return "client-left" if status == 499 else "other"
