"""A body as it arrives: whole, in time, or refused.

An application cannot rely on its server for that. uvicorn's httptools ends a body before its
first byte where the request offers an upgrade (``curl --http2``, Java's HttpClient), and no server
of ASGI gives up a body that stalls.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass

from .asgi import App, Header, Message, Receive, Scope, Send
from .problems import Problem, refuse
from .security import route_path

# Seconds of waiting for a body, or an item of it, after which its average rate counts.
ALLOWANCE = 60.0
# Bytes of a body that is read before its endpoint is asked.
MOST_SMALL = 64 << 10


@dataclass(frozen=True, slots=True)
class Framing:
    """How a request delimits its body. length: what Content-Length says. chunked: its
    Transfer-Encoding says that there is a body. upgrade: another protocol is offered."""

    length: int | None = None
    chunked: bool = False
    upgrade: bool = False

    @classmethod
    def of(cls, headers: Iterable[Header]) -> Framing:
        length: int | None = None
        chunked = upgrade = False
        for name, value in headers:
            if name == b"content-length":
                length = read_length(value)
            elif name == b"transfer-encoding":
                chunked = True
            elif name == b"upgrade":
                upgrade = True
        return cls(length, chunked, upgrade)

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)

    def check(self, size: int) -> None:
        """Check the size of a body that is said to be complete. Raises Problem: 400."""
        if self.length is not None and not self.chunked:
            if size == self.length:
                return
            announced = f"the request announces {self.length} bytes and the server read {size}"
        elif self.chunked and self.upgrade and not size:
            announced = "the server read nothing of a chunked body"
        else:
            return
        advice = "send it again without the header Upgrade" if self.upgrade else "send it again"
        raise Problem(
            400, "body-incomplete", "The body did not arrive whole", f"{announced}: {advice}"
        )


def read_length(value: bytes) -> int | None:
    """A Content-Length. Twenty digits are more than any limit, and int() refuses thousands."""
    return int(value.lstrip(b"0")[:20] or b"0") if value.isdigit() else None


class Pace:
    """Decides how long to wait for the next piece of a body. Counts waiting only: a client that
    is kept waiting itself is not slow.

    idle: seconds without a byte. rate: bytes a second on average that must come after the first
    ALLOWANCE seconds, since the start or the last ``restart``; 0: any.
    """

    __slots__ = ("_bytes", "_dry", "_idle", "_rate", "_waited")

    def __init__(self, idle: float, rate: float) -> None:
        self._idle = idle
        self._rate = rate
        self._dry = 0.0  # seconds since the last byte
        self._waited = 0.0
        self._bytes = 0

    def came(self, size: int, waited: float) -> None:
        """So many bytes came after so many seconds."""
        self._waited += waited
        self._bytes += size
        self._dry = 0.0 if size else self._dry + waited

    def restart(self) -> None:
        """An item is complete: the average begins anew."""
        self._waited = 0.0
        self._bytes = 0

    @property
    def patience(self) -> float:
        """Seconds to wait for the next piece."""
        return min(self._until_idle, self._until_slow)

    def refusal(self, setting: str) -> Problem:
        """408, once the patience has ended. setting: the name of ``idle``."""
        if self._until_idle <= self._until_slow:
            detail = f"nothing of it came for {self._idle:g} seconds"
        else:
            detail = f"it comes with less than {self._rate:g} bytes a second"
            setting = "min_body_rate"
        detail += f" (setting {setting}): send the request again"
        return Problem(408, "upload-idle", "The body does not go on", detail, setting=setting)

    @property
    def _until_idle(self) -> float:
        return self._idle - self._dry

    @property
    def _until_slow(self) -> float:
        if not self._rate:
            return math.inf
        return ALLOWANCE + self._bytes / self._rate - self._waited


class Arrival:
    """Reads one body. more: whether it goes on. size: bytes so far.

    by_line: its items are lines, each of which has the time that a whole body has otherwise.
    """

    def __init__(
        self,
        receive: Receive,
        framing: Framing,
        *,
        idle: float,
        rate: float,
        setting: str = "body_idle_timeout",
        by_line: bool = False,
    ) -> None:
        self.more = True
        self.size = 0
        self._receive = receive
        self._framing = framing
        self._setting = setting
        self._by_line = by_line
        self._time = asyncio.get_running_loop().time
        self._pace = Pace(idle, rate)

    async def next(self) -> bytes | None:
        """The next piece; None: the client has left. Raises Problem: 408, or 400 at the end of a
        body that is not as long as announced."""
        began = self._time()
        try:
            async with asyncio.timeout_at(began + self._pace.patience):
                message = await self._receive()
        except TimeoutError:
            raise self._pace.refusal(self._setting) from None
        if message["type"] == "http.disconnect":
            return None
        data: bytes = message.get("body", b"")
        self.size += len(data)
        self.more = message.get("more_body", False)
        if self.more:
            self._pace.came(len(data), self._time() - began)
            if self._by_line and b"\n" in data:
                self._pace.restart()
        else:
            self._framing.check(self.size)
        return data


class Whole:
    """Reads bodies before endpoints that do not, or only in small ones, so that none is lost in
    silence: whatever is framed has come whole before its request is answered with a success."""

    def __init__(self, app: App, *, idle: float, rate: float) -> None:
        self._app = app
        self._idle = idle
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_streamed(scope):
            framing = Framing.of(scope["headers"])
            if framing.has_body:
                await self._serve(framing, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _serve(self, framing: Framing, scope: Scope, receive: Receive, send: Send) -> None:
        arrival = Arrival(receive, framing, idle=self._idle, rate=self._rate)
        parts: list[bytes] = []
        try:
            while arrival.more:
                part = await arrival.next()
                if part is None:
                    return
                parts.append(part)
                if arrival.size > MOST_SMALL:
                    detail = f"this endpoint takes {MOST_SMALL} bytes at most"
                    raise Problem(413, "body-unwanted", "The body is too large", detail)
        except Problem as problem:
            await refuse(send, problem)
            return

        async def again() -> Message:
            if not parts:
                return await receive()
            message = {"type": "http.request", "body": b"".join(parts), "more_body": False}
            parts.clear()
            return message

        await self._app(scope, again, send)


def is_streamed(scope: Scope) -> bool:
    """Whether the endpoint reads a body of any size: ``POST /map/…``, ``/jobs/{function}``."""
    if scope["method"] != "POST":
        return False
    parts = route_path(scope).split("/")
    return len(parts) == 3 and parts[1] in ("map", "jobs")
