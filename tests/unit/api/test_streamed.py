"""Responses that are sent piece by piece."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap_api.streamed import write
from jetmap_api.streams import STREAM_HEADERS


@pytest.mark.anyio
async def test_a_stream_is_closed_when_the_client_leaves() -> None:
    closed = False

    async def pieces() -> Any:
        nonlocal closed
        try:
            yield b"one"
            yield b"two"
        finally:
            closed = True

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 1:
            raise OSError

    await write(send, b"text/plain", pieces())
    assert closed and [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
    assert STREAM_HEADERS[0] in sent[0]["headers"]
