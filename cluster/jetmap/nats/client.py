"""nats-py's client with two shorter ways: to the socket, and to a callback.

nats-py gives each publish to a flusher task and each message to a task of its subscription,
by a queue each; for a map of one item that is a fifth of all Python that runs. Here what was
published in one turn of the event loop is written at its end, and the callbacks of subjects
that ask for it are run by the reader itself. All else, also when data pile up, is nats-py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from nats.aio.client import Client

# With more than this unsent, nats-py's own flusher takes over: it waits for the socket.
CROWDED_BYTES = 262_144


class QuickClient(Client):
    """direct: the callbacks, by subscription id, that the reader runs itself. They must not wait
    for anything that arrives on this connection."""

    def __init__(self) -> None:
        super().__init__()
        self.direct: dict[int, Any] = {}
        self._write_scheduled = False

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        if force_flush or not self.is_connected or self._pending_data_size > CROWDED_BYTES:
            return await super()._flush_pending(force_flush)
        if not self._write_scheduled:
            self._write_scheduled = True
            asyncio.get_running_loop().call_soon(self._write_pending)
        return None

    def _write_pending(self) -> None:
        self._write_scheduled = False
        if self._pending_data_size > 0 and self.is_connected and self._transport is not None:
            try:
                self._transport.writelines(self._pending)
            except RuntimeError:
                return  # uvloop: closed, as the reader is about to see; kept for the next one
            self._pending = []
            self._pending_data_size = 0

    async def _process_pong(self) -> None:
        # nats-py's reader ends, and the connection is deaf, when an answer comes to a flush that
        # has given up.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        callback = self.direct.get(sid)
        if callback is None or sid not in self._subs:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        parsed = await self._process_headers(headers) if headers else None
        coroutine: Coroutine[Any, Any, None] = callback(
            self._build_message(sid, subject, reply, data, parsed)
        )
        await coroutine
