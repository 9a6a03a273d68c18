"""Comments on silent streams: one timer, and never within a piece."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap_api import heartbeats
from jetmap_api.heartbeats import COMMENT, Heartbeats

pytestmark = pytest.mark.anyio


class Client:
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.came = asyncio.Event()

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        self.got.append(message["body"])
        self.came.set()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "HEARTBEAT", 0.0)
    monkeypatch.setattr(heartbeats, "TICK", 0.001)


async def test_a_silent_stream_gets_comments_until_it_is_closed() -> None:
    beats, client = Heartbeats(), Client()
    beat = beats.add(client.send)
    await client.came.wait()
    assert len(beats) == 1
    await beat.close()
    assert len(beats) == 0 and beats._timer is None
    assert set(client.got) == {COMMENT}


async def test_no_comment_comes_while_a_piece_is_sent() -> None:
    beats, client = Heartbeats(), Client()
    beat = beats.add(client.send)
    client.reads.clear()
    piece = asyncio.create_task(beat.send({"body": b"piece"}))
    await asyncio.sleep(0)
    beat.comment()
    client.reads.set()
    await piece
    await beat.cancel()
    assert client.got[-1] == b"piece"


async def test_cancelling_ends_a_comment_that_is_not_read() -> None:
    beats, client = Heartbeats(), Client()
    beat = beats.add(client.send)
    client.reads.clear()
    beat.comment()
    await asyncio.sleep(0)
    await beat.cancel()
    await beat.cancel()
    assert client.got == [] and len(beats) == 0
