"""The types of ASGI, what to read of a scope, and plain answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

AsgiMessage = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


# Key in a scope: the whole body is here, so that nobody need wait for it. Our server sets it.
ARRIVED = "jetmap.arrived"
# Key in a response's first message: the reason of a refusal, for the access log.
REASON = "jetmap.reason"
# Key in a scope: the request was a HEAD, which is served as GET.
HEAD = "jetmap.head"


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the value of the first header of this name."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def route_path(scope: Scope) -> str:
    """Return the path below the point where the gateway is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("/", ""):
        return path[len(root) :]
    return path


async def respond(
    send: Send,
    status: int,
    media: bytes,
    body: bytes,
    headers: Iterable[Header] = (),
    reason: str = "",
) -> None:
    """Send one whole answer. reason: of a refusal, for the access log."""
    named = {REASON: reason} if reason else {}
    await send(
        named
        | {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", media),
                (b"content-length", b"%d" % len(body)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
