"""Cut and check JSON lines without decoding them."""

from __future__ import annotations

from collections import deque

import msgspec

from jetmap.errors import LimitExceeded

from .check import deeper_than, depth_error, not_utf8, syntax, too_deep, utf8_error

# The mark that some editors and shells put before UTF-8.
BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_check = msgspec.json.Decoder(msgspec.Raw).decode


class LinesParser:
    """Cut bytes into lines and check that each is one JSON value. Holds at most one line.

    max_item: bytes of an item. max_depth: levels that an item may nest.
    """

    def __init__(self, max_item: int, max_depth: int) -> None:
        self._max_item = max_item
        self._max_depth = max_depth
        self._tail = b""
        self._line = 1  # the number of the line that the tail begins
        self._index = 0  # of the next item

    def add(self, data: bytes, more: bool) -> list[bytes]:
        """Return the items of the lines that are complete; the last line needs no newline.

        more: whether more bytes follow. Raises Malformed, or LimitExceeded for an item; both
        name the line.
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
        if len(self._tail) > self._max_item:
            raise item_too_large(self._index, len(self._tail), self._max_item, self._line)
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
        try:
            deque(map(_check, items), maxlen=0)
            faulty = len(data) > self._max_item or deeper_than(data, self._max_depth)
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
        depth = self._max_depth
        for number, line in enumerate(lines):
            item = line.strip(_SPACE)
            if not item:
                continue
            at = self._line + number
            if len(item) > self._max_item:
                raise item_too_large(index, len(item), self._max_item, at)
            try:
                _check(item)
            except msgspec.MsgspecError as exc:
                raise syntax(exc, line, len(line) - len(line.lstrip(_SPACE)), at) from exc
            except RecursionError as exc:
                raise too_deep(depth_error(line, depth), depth, at) from exc
            if deeper_than(item, depth):
                raise too_deep(depth_error(line, depth), depth, at)
            index += 1


def item_too_large(index: int, size: int, limit: int, line: int | None = None) -> LimitExceeded:
    """Make the error for an item that is too large. size, limit: bytes."""
    where = "" if line is None else f" in line {line}"
    return LimitExceeded(
        f"item {index}{where} is {size} bytes or more; an item may have {limit} "
        "(max_item_bytes): send a reference to large data instead",
        setting="max_item_bytes",
        limit=limit,
        value=size,
        index=index,
    )
