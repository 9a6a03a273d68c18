"""Bodies are read before endpoints that do not read them."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap_api.small_bodies import MOST_SMALL, SmallBodies, is_streamed

pytestmark = pytest.mark.anyio


def scope(path: str = "/login", length: int | None = None) -> dict[str, Any]:
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return {"type": "http", "method": "POST", "path": path, "headers": headers}


async def serve(scope: dict[str, Any], *pieces: bytes) -> tuple[list[bytes], list[Any]]:
    """Return the bodies that the endpoint saw, and what was sent."""
    seen: list[bytes] = []
    sent: list[Any] = []
    waiting = list(pieces)

    async def receive() -> Any:
        if not waiting:
            return {"type": "http.disconnect"}
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive()).get("body", b"left"))

    await SmallBodies(app, idle=10, rate=0)(scope, receive, send)
    return seen, sent


async def test_pieces_are_joined() -> None:
    assert await serve(scope(length=4), b"ab", b"cd") == ([b"abcd"], [])


async def test_a_body_of_another_length_is_refused() -> None:
    seen, sent = await serve(scope(length=4), b"ab")
    assert seen == [] and sent[0]["status"] == 400


async def test_a_large_body_is_refused() -> None:
    seen, sent = await serve(scope(length=MOST_SMALL + 1), b"x" * (MOST_SMALL + 1))
    assert seen == [] and sent[0]["status"] == 413


async def test_bodies_of_maps_and_jobs_pass_in_pieces() -> None:
    assert await serve(scope("/map/f", length=4), b"ab", b"cd") == ([b"ab"], [])
    assert is_streamed(scope("/jobs/f")) and not is_streamed(scope("/jobs/f/cancel"))


async def test_without_a_body_nothing_is_read() -> None:
    assert await serve(scope()) == ([b"left"], [])
