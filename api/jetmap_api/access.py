"""One log line for each request, and counters of what was answered and refused."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from http import HTTPStatus

from jetmap.logs import Limited, harmless

from .asgi import REASON, App, Message, Receive, Scope, Send
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


class AccessLog:
    """Logs method, path, status and duration of each request, never its query or headers, which
    may hold secrets.

    rate: lines a second; more are counted, and told of. 0: none.
    """

    def __init__(self, app: App, requests: Requests, rate: int) -> None:
        self._app = app
        self._requests = requests
        self._is_on = rate > 0
        self._lines = Limited(logger, "requests", rate=max(1, rate), burst=2 * max(1, rate))
        self._telling: asyncio.TimerHandle | None = None

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
            if self._is_on:
                self._log(scope, status, reason, time.perf_counter() - began)

    def _log(self, scope: Scope, status: int, reason: str, seconds: float) -> None:
        level = logging.DEBUG if route_path(scope) in QUIET_PATHS else logging.INFO
        if not self._lines.passes(level):
            if self._telling is None and self._lines.has_left_out:
                self._telling = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)
            return
        client = scope.get("client")
        self._lines.write(
            level,
            "%s %s %s %s%s %.1f ms",
            client[0] if client else "-",
            harmless(scope["method"])[:16],
            harmless(scope["path"])[:PATH_CHARACTERS],
            status or "no answer",
            f" {reason}" if reason else "",
            1000 * seconds,
        )

    def _tell(self) -> None:
        self._telling = None
        self._lines.tell()


def reason_of(status: int) -> str:
    """A reason for a refusal that names none."""
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "-")
    except ValueError:
        return "client-left" if status == 499 else "other"
