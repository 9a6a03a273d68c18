"""Split JSON lines."""

from __future__ import annotations

from collections import deque

import msgspec

from jetmap.settings import LimitSettings
from jetmap.wire.check import deeper_than, depth_error, not_utf8, syntax, too_deep, utf8_error

from .splitter import BOM, Splitter, item_too_large

_SPACE = b" \t\r\n"
_check = msgspec.json.Decoder(msgspec.Raw).decode


class JsonLines(Splitter):
    """Split lines that hold one JSON value or nothing; the last one needs no newline.

    Errors name the line.
    """

    def __init__(self, limits: LimitSettings) -> None:
        super().__init__(limits)
        self._line = 1  # the number of the line that the tail begins
        self._index = 0  # of the next item

    def _can_wait(self) -> bool:
        # A caller may wait for the values of a line before it sends more.
        return super()._can_wait() and b"\n" not in self._fed[-1]

    def _split(self, data: bytes) -> list[bytes]:
        if self._tail:
            data = self._tail + data
        end = len(data) if self._closed else data.rfind(b"\n") + 1
        self._tail = data[end:]
        items = self._items(data[:end]) if end else []
        limit = self._limits.max_item_bytes
        if len(self._tail) > limit:
            raise item_too_large(self._index, len(self._tail), limit, self._line)
        return items

    def _items(self, data: bytes) -> list[bytes]:
        if self._line == 1 and data.startswith(BOM):
            data = b"   " + data[len(BOM) :]  # Positions in errors stay what they are.
        position = utf8_error(data)
        if position is not None:
            line = data.count(b"\n", 0, position)
            start = data.rfind(b"\n", 0, position) + 1
            raise not_utf8(position - start, self._line + line)
        lines = data.split(b"\n")
        items = [item for line in lines if (item := line.strip(_SPACE))]
        limits = self._limits
        try:
            deque(map(_check, items), maxlen=0)
            faulty = len(data) > limits.max_item_bytes or deeper_than(data, limits.max_depth)
        except (msgspec.MsgspecError, RecursionError):
            faulty = True
        if faulty:
            self._check_each(lines)
        self._line += len(lines) - 1
        self._index += len(items)
        return items

    def _check_each(self, lines: list[bytes]) -> None:
        """Find the first faulty line."""
        index = self._index
        depth, most = self._limits.max_depth, self._limits.max_item_bytes
        for number, line in enumerate(lines, self._line):
            item = line.strip(_SPACE)
            if not item:
                continue
            if len(item) > most:
                raise item_too_large(index, len(item), most, number)
            try:
                _check(item)
            except msgspec.MsgspecError as exc:
                raise syntax(exc, line, len(line) - len(line.lstrip(_SPACE)), number) from exc
            except RecursionError as exc:
                raise too_deep(depth_error(line, depth), depth, number) from exc
            if deeper_than(item, depth):
                raise too_deep(depth_error(line, depth), depth, number)
            index += 1
