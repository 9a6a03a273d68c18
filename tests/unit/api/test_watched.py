"""Each request gets one answer, whoever ends it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap_api.asgi import respond
from jetmap_api.disconnect import DisconnectWatcher
from jetmap_api.problems import Problem
from jetmap_api.watched import serve_watched

pytestmark = pytest.mark.anyio


class Client:
    def __init__(self) -> None:
        self.statuses: list[int] = []

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])


@pytest.mark.parametrize("begins", [False, True], ids=["before its answer", "within it"])
@pytest.mark.parametrize(
    ("end", "status"), [("refuse", 418), ("leave", 499), ("cancel", 503), ("answer", 204)]
)
async def test_one_answer(begins: bool, end: str, status: int) -> None:
    client = Client()

    async def serve(send: Any, watcher: DisconnectWatcher) -> None:
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        elif end == "answer":
            await respond(send, 204, b"text/plain", b"")
        if end == "refuse":
            raise Problem(418, "teapot", "A teapot", "it brews no coffee")
        if end == "leave":
            watcher.leave()
            await asyncio.sleep(0)
        if end == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    if begins and end == "refuse":
        with pytest.raises(Problem):  # So the server breaks the connection off.
            await serve_watched(serve, client.send, False)
    else:
        await serve_watched(serve, client.send, False)
    assert client.statuses == [200 if begins else status]
