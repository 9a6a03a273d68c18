"""Comments that keep idle streams open: one timer for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import Any

from .asgi import Send
from .streams import HEARTBEAT

COMMENT = b": still running\n\n"
# Seconds between looks for silent streams.
TICK = 1.0


class Heartbeats:
    """Send a comment on each stream that was silent for HEARTBEAT seconds."""

    def __init__(self) -> None:
        self._quiet: OrderedDict[Beat, float] = OrderedDict()  # since when, the longest first
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """The number of streams that are kept open."""
        return len(self._quiet)

    def add(self, send: Send) -> Beat:
        """Keep a stream open whose answer has begun. Send its pieces with the ``Beat``."""
        beat = Beat(self, send)
        self.touch(beat)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._look)
        return beat

    def touch(self, beat: Beat) -> None:
        """Note that something was sent just now."""
        self._quiet[beat] = asyncio.get_running_loop().time()
        self._quiet.move_to_end(beat)

    def remove(self, beat: Beat) -> None:
        self._quiet.pop(beat, None)
        if not self._quiet and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() - HEARTBEAT
        due = []
        for beat, since in self._quiet.items():
            if since > until:
                break
            due.append(beat)
        for beat in due:
            self.touch(beat)
            beat.comment()
        self._timer = loop.call_later(TICK, self._look)


class Beat:
    """One stream. A comment never comes within a piece, nor after the last one."""

    def __init__(self, heartbeats: Heartbeats, send: Send) -> None:
        self._heartbeats = heartbeats
        self._send = send
        self._comment: asyncio.Task[None] | None = None  # ended by close and cancel
        self._is_sending = False

    async def send(self, message: Any) -> None:
        """Send a piece."""
        self._is_sending = True
        try:
            await self._behind_comment()
            await self._send(message)
        finally:
            self._is_sending = False
        self._heartbeats.touch(self)

    def comment(self) -> None:
        """Send a comment, unless something is being sent to a client that does not read."""
        if not self._is_sending and self._comment is None:
            self._comment = asyncio.get_running_loop().create_task(self._send_comment())

    async def close(self) -> None:
        """Send no more comments."""
        self._heartbeats.remove(self)
        await self._behind_comment()

    async def cancel(self) -> None:
        """Send nothing more, not even what is left. Calling it again is harmless."""
        self._heartbeats.remove(self)
        if self._comment is not None:
            self._comment.cancel()
            await self._behind_comment()

    async def _behind_comment(self) -> None:
        if self._comment is not None:
            await asyncio.wait({self._comment})

    async def _send_comment(self) -> None:
        try:
            with contextlib.suppress(OSError):  # The client has left; its request ends by itself.
                await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})
        finally:
            self._comment = None
