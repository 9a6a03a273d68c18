"""Plain answers, and what is read of a scope."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap_api.asgi import REASON, respond, route_path

pytestmark = pytest.mark.anyio


async def test_an_answer_is_two_messages() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await respond(send, 200, b"text/plain", b"hello", [(b"x", b"y")])
    head, body = sent
    assert (head["type"], head["status"]) == ("http.response.start", 200)
    assert head["headers"] == [
        (b"content-type", b"text/plain"),
        (b"content-length", b"5"),
        (b"x", b"y"),
    ]
    assert body == {"type": "http.response.body", "body": b"hello"}
    assert REASON not in head


async def test_a_refusal_names_its_reason_to_the_access_log() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await respond(send, 404, b"text/plain", b"", reason="not-found")
    assert sent[0][REASON] == "not-found"


def test_paths_below_a_mount() -> None:
    assert route_path({"path": "/a/jobs", "root_path": "/a"}) == "/jobs"
    assert route_path({"path": "/a", "root_path": "/a"}) == ""
    assert route_path({"path": "/ab/jobs", "root_path": "/a"}) == "/ab/jobs"
    assert route_path({"path": "/jobs"}) == "/jobs"
