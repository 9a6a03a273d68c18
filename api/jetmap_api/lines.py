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
from .problems import Problem

if TYPE_CHECKING:
    from jetmap.client.sources import Feed

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
    """Reads a body of JSON lines into a feed, in a task of its own.

    ``complete`` is true once the body has been read. After a fault, or after ``discard``, what
    is left of the body is read and dropped, so that a client that sends all of it before it
    reads comes to see the answer.
    """

    def __init__(self, receive: Receive, feed: Feed, departure: Departure, limits: Limits) -> None:
        self.complete = False
        self._receive = receive
        self._feed = feed
        self._departure = departure
        self._parser = LinesParser(limits)
        self._task = asyncio.create_task(self._run())

    def discard(self) -> None:
        """The map has ended: its items are no longer wanted."""
        if not self.complete:
            self._task.cancel()
            self._task = asyncio.create_task(self._drain())

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._read()
        except Problem as problem:
            self._feed.fail(problem)
        await self._drain()

    async def _read(self) -> None:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._departure.leave()
                return
            more = message.get("more_body", False)
            items = self._parser.add(message.get("body", b""), more)
            if items:
                await self._feed.put(items)
        self.complete = True
        self._feed.close()

    async def _drain(self) -> None:
        """Drops the rest, then waits for the client to leave."""
        while (message := await self._receive())["type"] != "http.disconnect":
            self.complete = self.complete or not message.get("more_body", False)
        self._departure.leave()
