"""nats-py's client with a transport of ours, which writes once a turn of the event loop.

nats-py copies each payload five times on its way in and twice on its way out, passes each publish
through a queue to a flusher task, and each message through a queue to its subscription's task.
Here a large payload is written as it is, the publishes of one turn of the event loop are written at
its end, and ``transport.py`` reads payloads into buffers of their own and runs the callbacks that
ask for it itself. Everything else, including what happens when data pile up, is nats-py's. It uses
private names of nats-py: see decisions 0100 and 0310.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, cast

from nats.aio.client import Client
from nats.protocol.parser import Parser

from jetmap.payload_buffer import LARGE_BYTES

from .broker import Skip
from .transport import TcpTransport

# Bytes unsent, above which nats-py's own flusher takes over, because it waits for the socket.
CROWDED_BYTES = 262_144
PING = b"PING\r\n"


class QuickClient(Client):
    """A client that writes once a turn of the event loop.

    direct: the callbacks, by subscription id, that the reader runs itself. They must not wait for
    anything that arrives on this connection. skips: functions that are called before these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.direct: dict[int, Any] = {}
        self.skips: dict[int, Skip] = {}
        self._write_scheduled = False

    async def _connect_to_server(self, s: Any) -> None:
        if s.uri.scheme not in ("ws", "wss"):
            transport = TcpTransport(self)
            self._transport, self._ps = transport, cast(Parser, transport)
            await transport.connect(s.uri, 0, self.options["connect_timeout"])
            return
        await super()._connect_to_server(s)

    def abort(self) -> None:
        """Close the socket at once, whatever waits to be sent."""
        if isinstance(self._transport, TcpTransport):
            self._transport.abort()

    async def stop_reconnecting(self) -> None:
        """End nats-py's attempt to connect again, if there is one.

        ``close`` cancels it, but does not wait until it has ended. While it connects it swallows
        that, and would then go on as an open connection that nobody closes.
        """
        task = self._reconnection_task
        while task is not None and task is not asyncio.current_task() and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.1)

    async def on_control(self, line: bytes) -> None:
        """Handle a line that is not a message."""
        if line.startswith(b"PING"):
            await self._process_ping()
        elif line.startswith(b"PONG"):
            await self._process_pong()
        elif line.startswith(b"-ERR"):
            await self._process_err(line[4:].strip().decode().lower())
        else:
            await self._process_info(json.loads(line[4:]))

    def publish_soon(self, subject: str, payload: bytes | memoryview, reply: str) -> bool:
        """Queue a small message without headers, as ``publish`` does in eight calls.

        Returns False where nothing was done, because ``publish`` may have to refuse or to wait.
        """
        size = len(payload)
        if (
            size >= LARGE_BYTES
            or size > self._max_payload
            or self._pending_data_size >= CROWDED_BYTES
            or self._status != Client.CONNECTED
            or not subject
        ):
            return False
        data = f"PUB {subject} {reply} {size}\r\n".encode() + payload + b"\r\n"
        self._pending.append(data)
        self._pending_data_size += len(data)
        if not self._write_scheduled:
            self._write_scheduled = True
            asyncio.get_running_loop().call_soon(self._write_pending)
        return True

    async def _send_publish(
        self,
        subject: str,
        reply: str,
        payload: bytes | memoryview,
        payload_size: int,
        headers: dict[str, Any] | None,
    ) -> None:
        if payload_size < LARGE_BYTES:
            await super()._send_publish(subject, reply, bytes(payload), payload_size, headers)
            return
        if headers is None:
            head = f"PUB {subject} {reply} {payload_size}\r\n"
        else:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            lines = f"NATS/1.0\r\n{lines}\r\n"
            head = f"HPUB {subject} {reply} {len(lines)} {len(lines) + payload_size}\r\n{lines}"
        self._pending += (head.encode("ascii"), cast(bytes, payload), b"\r\n")
        self._pending_data_size += len(head) + payload_size + 2
        await self._flush_pending(force_flush=self._pending_data_size > self._max_pending_size)

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

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        # nats-py writes it at once, before what was published, and then nothing once more.
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        if self.is_connected:
            self._pending.append(PING)
            self._pending_data_size += len(PING)
            await self._flush_pending()

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
        parsed = await self._process_headers(headers) if headers else None
        coroutine: Coroutine[Any, Any, None] = callback(
            self._build_message(sid, subject, reply, data, parsed)
        )
        await coroutine
