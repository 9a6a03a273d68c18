"""Feed JSON lines to a map as they arrive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jetmap.background import Background
from jetmap.settings import LimitSettings
from jetmap.wire.split import JsonLines

from .admission import Reservation
from .asgi import Receive
from .bodies import Arrival, Framing
from .disconnect import DisconnectWatcher
from .spool import SpooledPipe

if TYPE_CHECKING:
    from jetmap.dispatch.item_feed import ItemFeed

# Bytes a second that are read of a body far ahead of its map. A client that is gone has left a few
# MB in the buffers of two kernels, and only reading them shows that it is gone.
READ_AHEAD = 1 << 20


class LinesBody:
    """Read a body of JSON lines into a feed, in two tasks that ``aclose`` ends.

    The body is read ahead of the map, as far as memory allows and then slowly into a file, because
    only reading shows that the client has left. ``complete`` is true once all of it has been read.
    After a fault, or after ``discard``, the rest is read and dropped, so that a client that sends
    its whole body before it reads comes to see the answer.
    """

    def __init__(
        self,
        receive: Receive,
        framing: Framing,
        feed: ItemFeed,
        watcher: DisconnectWatcher,
        limits: LimitSettings,
        reservation: Reservation,
    ) -> None:
        self.complete = False
        self.arrived = asyncio.Event()  # set when complete
        self._receive = receive
        self._arrival = Arrival(
            receive,
            framing,
            idle=limits.body_idle_timeout,
            rate=limits.min_body_rate,
            by_line=True,
        )
        self._feed = feed
        self._watcher = watcher
        self._limits = limits
        self._reservation = reservation
        self._pipe = SpooledPipe(limits, reservation, waits=True)
        self._dropping = False
        self._background = Background("body of lines")
        self._background.spawn(self._read(), "read")
        self._feeder = self._background.spawn(self._parse(), "parse")

    def discard(self) -> None:
        """Drop the items: the map has ended."""
        self._dropping = True
        self._feeder.cancel()
        self._pipe.discard()

    async def aclose(self) -> None:
        """End both tasks."""
        self._pipe.discard()
        await self._background.close()

    async def _read(self) -> None:
        try:
            while self._arrival.more:
                data = await self._arrival.next()
                if data is None:
                    break
                if not self._arrival.more:
                    self.complete = True
                    self.arrived.set()
                if not self._dropping:
                    await self._keep(data)
            if self.complete:
                while (await self._receive())["type"] != "http.disconnect":
                    pass
            self._watcher.leave()
        except Exception as exc:
            self.arrived.set()  # nothing more of it comes
            self._feed.fail(exc)

    async def _keep(self, data: bytes) -> None:
        if self.complete:
            self._pipe.end(data)
            return
        self._pipe.put(data)
        limits = self._limits
        if self._pipe.size > limits.max_buffer_bytes:
            left = min(limits.max_spool_bytes - self._pipe.size, self._reservation.spool_left)
            full = left < READ_AHEAD
            try:
                async with asyncio.timeout(None if full else len(data) / READ_AHEAD):
                    await self._pipe.room()
            except TimeoutError:
                pass  # A little more goes to the file: the client may have left after it.

    async def _parse(self) -> None:
        split = JsonLines(self._limits)
        try:
            data: bytes | None = b""
            while data is not None:
                data = await self._pipe.get()
                split.close() if data is None else split.feed(data)
                self._reservation.hold(split.held)
                while items := split.next_elements():
                    await self._feed.put(items)
            self._feed.close()
        except Exception as exc:
            self._dropping = True
            self._pipe.discard()
            self._feed.fail(exc)
