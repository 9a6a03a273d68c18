"""JSON lines, fed to the map as they arrive."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from .asgi import Receive
from .bodies import item_too_large
from .checks import deeper_than, depth_error, not_utf8, syntax, too_deep, utf8_error
from .departure import Departure
from .limits import Limits
from .spool import SpooledPipe

if TYPE_CHECKING:
    from jetmap.client.sources import Feed

# Bytes a second that are read of a body that is far ahead of its map. What a client that is
# gone had still sent lies in the buffers of two kernels: a few MB.
READ_AHEAD = 1 << 20

_SPACE = b" \t\r\n"
_check = msgspec.json.Decoder(msgspec.Raw).decode


class LinesParser:
    """Cuts a body into lines and checks each to be one JSON value. Holds at most one line."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tail = b""
        self._line = 1  # the number of the line that the tail begins
        self._index = 0  # of the next item

    def add(self, data: bytes, more: bool) -> list[bytes]:
        """The items of the lines that are complete now; the last needs no newline.

        Raises Problem, which names the line: 400 for what is no JSON, 413 for a large item.
        """
        if self._tail:
            data = self._tail + data
        if more:
            end = data.rfind(b"\n") + 1
            self._tail = data[end:]
            data = data[:end]
        else:
            self._tail = b""
        items = self._items(data) if data else []
        if len(self._tail) > self._limits.max_item_bytes:
            raise item_too_large(self._index, len(self._tail), self._limits, self._line)
        return items

    def _items(self, data: bytes) -> list[bytes]:
        position = utf8_error(data)
        if position is not None:
            line = data.count(b"\n", 0, position)
            start = data.rfind(b"\n", 0, position) + 1
            raise not_utf8(position - start, self._line + line)
        lines = data.split(b"\n")
        items = [item for line in lines if (item := line.strip(_SPACE))]
        try:
            deque(map(_check, items), maxlen=0)
            faulty = len(data) > self._limits.max_item_bytes or deeper_than(
                data, self._limits.max_depth
            )
        except (msgspec.MsgspecError, RecursionError):
            faulty = True
        if faulty:
            self._check_each(lines)
        self._line += len(lines) - 1
        self._index += len(items)
        return items

    def _check_each(self, lines: list[bytes]) -> None:
        """Finds the first faulty line."""
        index = self._index
        depth = self._limits.max_depth
        for number, line in enumerate(lines):
            item = line.strip(_SPACE)
            if not item:
                continue
            at = self._line + number
            if len(item) > self._limits.max_item_bytes:
                raise item_too_large(index, len(item), self._limits, at)
            try:
                _check(item)
            except msgspec.MsgspecError as exc:
                raise syntax(exc, line, len(line) - len(line.lstrip(_SPACE)), at) from exc
            except RecursionError as exc:
                raise too_deep(depth_error(line, depth), depth, at) from exc
            if deeper_than(item, depth):
                raise too_deep(depth_error(line, depth), depth, at)
            index += 1


class LinesBody:
    """Reads a body of JSON lines into a feed, in tasks of its own.

    The body is read ahead of the map, as far as memory allows and then slowly into a file:
    only who reads learns that the client has left. ``complete`` is true once all of it has
    been read. After a fault, or after ``discard``, what is left is read and dropped, so that a
    client that sends its whole body before it reads comes to see the answer.
    """

    def __init__(self, receive: Receive, feed: Feed, departure: Departure, limits: Limits) -> None:
        self.complete = False
        self._receive = receive
        self._feed = feed
        self._departure = departure
        self._limits = limits
        self._pipe = SpooledPipe(limits)
        self._dropping = False
        self._reader = asyncio.create_task(self._read())
        self._feeder = asyncio.create_task(self._parse())

    def discard(self) -> None:
        """The map has ended: its items are no longer wanted."""
        self._dropping = True
        self._feeder.cancel()
        self._pipe.discard()

    def close(self) -> None:
        self._reader.cancel()
        self._feeder.cancel()
        self._pipe.discard()

    async def _read(self) -> None:
        try:
            while (message := await self._receive())["type"] != "http.disconnect":
                data = message.get("body", b"")
                self.complete = self.complete or not message.get("more_body", False)
                if not self._dropping:
                    await self._keep(data)
            self._departure.leave()
        except Exception as exc:
            self._feed.fail(exc)

    async def _keep(self, data: bytes) -> None:
        if self.complete:
            self._pipe.end(data)
            return
        self._pipe.put(data)
        limits = self._limits
        if self._pipe.size > limits.max_buffer_bytes:
            full = self._pipe.size > limits.max_spool_bytes - READ_AHEAD
            try:
                async with asyncio.timeout(None if full else len(data) / READ_AHEAD):
                    await self._pipe.room()
            except TimeoutError:
                pass  # a little more goes to the file: the client may have left behind it

    async def _parse(self) -> None:
        parser = LinesParser(self._limits)
        try:
            while (data := await self._pipe.get()) is not None:
                if items := parser.add(data, True):
                    await self._feed.put(items)
            if items := parser.add(b"", False):
                await self._feed.put(items)
            self._feed.close()
        except Exception as exc:
            self._dropping = True
            self._pipe.discard()
            self._feed.fail(exc)
