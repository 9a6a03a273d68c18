"""Connections, with a client that answers as the test says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from jetmap.nats.auth import Auth
from jetmap.nats.connection import Connection

pytestmark = pytest.mark.anyio


class SwallowingClient:
    """Answers the moment it is cancelled, as ``asyncio.wait_for`` may before Python 3.12."""

    is_connected = False

    async def request(self, *arguments: Any, **options: Any) -> SimpleNamespace:
        await self.flush(1)
        return SimpleNamespace(data=b"")

    async def flush(self, timeout: int) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass


@pytest.mark.parametrize("what", ["request", "flush", "round_trip"])
async def test_a_cancellation_is_not_lost_to_an_answer(what: str) -> None:
    connection = Connection([], name="test", auth=Auth(), inbox_prefix="_INBOX")
    connection._client = SwallowingClient()  # type: ignore[assignment]

    async def calling() -> None:
        await getattr(connection, what)(*["a"][: what == "request"])
        raise AssertionError("it went on")

    task = asyncio.create_task(calling())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
