"""nats-py's client with two shortcuts: to the socket, and to a callback.

nats-py passes each publish through a queue to a flusher task, and each message through a queue to
its subscription's task; for a map of one item that is a fifth of all Python that runs. Here the
publishes of one turn of the event loop are written at its end, and the reader itself runs the
callbacks that ask for it. Everything else, including what happens when data pile up, is nats-py's.
It uses private names of nats-py: see decision 0100.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from nats.aio.client import Client

# Bytes unsent, above which nats-py's own flusher takes over, because it waits for the socket.
CROWDED_BYTES = 262_144


class QuickClient(Client):
    """A client that writes once a turn of the event loop.

    direct: the callbacks, by subscription id, that the reader runs itself. They must not wait for
    anything that arrives on this connection.
    """

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
                return  # uvloop: closed, as the reader will notice; the next client sends this.
            self._pending = []
            self._pending_data_size = 0

    async def _process_pong(self) -> None:
        # When an answer comes to a flush that has given up, nats-py's reader ends, and nothing more
        # is read.
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
