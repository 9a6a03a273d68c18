"""Read bodies before endpoints that do not, or that read only small ones, so that none is lost."""

from __future__ import annotations

from .asgi import App, AsgiMessage, Receive, Scope, Send, route_path
from .bodies import Arrival, Framing
from .problems import Problem, refuse

# Bytes of a body that is read before its endpoint is asked.
MOST_SMALL = 64 << 10


class SmallBodies:
    """Read a framed body whole, before its request is answered with a success."""

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

        async def again() -> AsgiMessage:
            if not parts:
                return await receive()
            message = {"type": "http.request", "body": b"".join(parts), "more_body": False}
            parts.clear()
            return message

        await self._app(scope, again, send)


def is_streamed(scope: Scope) -> bool:
    """Return True if the endpoint reads a body of any size: ``POST /map/…`` or ``/jobs/…``."""
    if scope["method"] != "POST":
        return False
    parts = route_path(scope).split("/")
    return len(parts) == 3 and parts[1] in ("map", "jobs")
