"""Arrays that arrive in pieces of any size, split into raw elements as they come.

The checks are those of ``bodies``; what is held is one item and one piece. White space behind
an item counts as part of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Protocol

import msgpack
import msgspec

from jetmap.settings import LimitSettings
from jetmap.wire.check import depth_error, located, syntax, too_deep
from jetmap.wire.json_lines import LinesParser, item_too_large

from .elements import check_msgpack, json_piece, too_deep_msgpack
from .media import USE_JSON, Body
from .problems import malformed

GATHER = 256 * 1024  # bytes that are split at a time
WINDOW = 4096  # bytes at the end in which a comma between elements is looked for first

Elements = Sequence[bytes | msgspec.Raw]

_SPACE = b" \t\r\n"
_split_json = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Splitter(Protocol):
    """Splits a body. ``add`` returns the elements that are whole now; more: whether the body
    goes on. Raises Problem, Malformed or LimitExceeded, with the position."""

    def add(self, data: bytes, more: bool) -> Elements: ...


def splitter(body: Body, limits: LimitSettings) -> Splitter:
    """For a body of this media type, of any length."""
    if body == "jsonl":
        return LinesParser(limits.max_item_bytes, limits.max_depth)
    return JsonArray(limits) if body == "json" else MsgpackArray(limits)


class JsonArray:
    """A JSON array."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits.model_copy(update={"max_list": sys.maxsize})
        self._gathered: list[bytes] = []
        self._new = 0
        self._tail = b""
        self._at = 0  # the tail's position in the body
        self._count = 0
        self._opened = False
        self._closed = False
        # So much of the tail holds no cut, and ends so; a large item is scanned once.
        self._seen = 0
        self._depth = 0
        self._inside = False

    def add(self, data: bytes, more: bool) -> Elements:
        self._gathered.append(data)
        self._new += len(data)
        if more and self._new < GATHER:
            return ()
        data = b"".join((self._tail, *self._gathered))
        self._gathered.clear()
        self._new = 0
        self._tail = self._stripped(data)
        if not self._opened:
            self._open(more)
        elements = self._elements() if self._opened and not self._closed else ()
        if self._closed:
            if self._tail:
                raise located("JSON is malformed: trailing characters", self._at, None)
        elif not more:
            json_piece(b"[" + self._tail, self._at - 1, self._count, self._limits)
            raise located("JSON is malformed: it ends too early", self._at, None)
        elif len(self._tail) > self._limits.max_item_bytes:
            self._refuse_tail()
        return elements

    def _open(self, more: bool) -> None:
        if self._tail[:1] == b"[":
            self._opened = True
            self._at += 1
            self._tail = self._stripped(self._tail[1:])
        elif not more:
            json_piece(self._tail, self._at, 0, self._limits)
            raise malformed(f"the body is no array: {USE_JSON}", position=self._at)
        elif self._tail:
            raise malformed(f"the body is no array: {USE_JSON}", position=self._at)

    def _elements(self) -> list[msgspec.Raw]:
        data = self._tail
        seen = (self._seen, self._depth, self._inside)
        comma, end = _cut(data, *seen)
        if end < 0 and comma < 0:
            until = _outside_escape(data, len(data), self._seen)
            self._depth, self._inside = _state(data[self._seen : until], *seen[1:])
            self._seen = until
            return []
        self._seen, self._depth, self._inside = 0, 0, False
        # The comma or bracket is a guess, that is proved by what precedes it being whole.
        piece = b"[" + (data[: end + 1] if end >= 0 else data[:comma] + b"]")
        elements = json_piece(piece, self._at - 1, self._count, self._limits)
        if not elements:
            if end < 0:
                raise located("JSON is malformed: expected a value", self._at + comma, None)
            if self._count:
                raise located("JSON is malformed: trailing comma in array", self._at + end, None)
        self._count += len(elements)
        self._closed = end >= 0
        taken = max(comma, end) + 1
        self._at += taken
        self._tail = self._stripped(data[taken:])
        return elements

    def _stripped(self, data: bytes) -> bytes:
        rest = data.lstrip(_SPACE)
        self._at += len(data) - len(rest)
        return rest

    def _refuse_tail(self) -> None:
        """An item that is over its size, if it is not malformed as well."""
        tail = self._tail
        depth = self._limits.max_depth
        deep = depth_error(tail, depth)
        if deep < len(tail):
            raise too_deep(self._at + deep, depth)
        try:
            _split_json(b"[" + tail)
        except msgspec.DecodeError as exc:
            error = syntax(exc, b"[" + tail, self._at - 1)
            if error.position < self._at + len(tail):
                raise error from exc
        raise item_too_large(self._count, len(tail), self._limits.max_item_bytes)


_SHAPE = bytes.maketrans(b"{}", b"[]")
_NO_SHAPE = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*"')
_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
# Up to the next bracket (or comma) that is in no string; possessive: nothing is tried twice.
_INNER = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+[\[\]{}]', re.DOTALL)
_TOKEN = re.compile(rb'(?:[^"\[\]{},]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+[\[\]{},]', re.DOTALL)


def _cut(data: bytes, seen: int, depth: int, inside: bool) -> tuple[int, int]:
    """The last comma between elements, and the bracket that ends the array; -1: not there.

    data: from the start of an element on. seen: bytes that hold neither; depth, inside: the
    state behind them. Of well-formed JSON the answer is right; of other data it may be anything.
    """
    window = WINDOW
    while True:
        start = _outside_escape(data, len(data) - window, seen)
        at_start = _state(data[seen:start], depth, inside)
        if at_start[0] < 0:  # the array has ended before
            start, at_start = seen, (depth, inside)
        comma, end = _scan(data, start, *at_start)
        if comma >= 0 or end >= 0 or start == seen:
            return comma, end
        window *= 8


def _outside_escape(data: bytes, at: int, least: int) -> int:
    """``at``, or a little before."""
    while at > least and data[at - 1] == 0x5C:
        at -= 1
    return max(at, least)


def _state(data: bytes, depth: int, inside: bool) -> tuple[int, bool]:
    """Open brackets at the end of data, and whether that is inside a string; the same at its
    start is given."""
    if not data:
        return depth, inside
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    shape = data.translate(_SHAPE, _NO_SHAPE)
    if inside:
        shape = b'"' + shape
    inside = shape.count(b'"') % 2 == 1
    shape = _STRING.sub(b"", shape.replace(b'""', b""))
    if inside:
        shape = shape[: shape.find(b'"')]
    return depth + shape.count(b"[") - shape.count(b"]"), inside


def _scan(data: bytes, start: int, depth: int, inside: bool) -> tuple[int, int]:
    if inside:
        rest = _REST.match(data, start)
        assert rest is not None
        start = rest.end()
    comma = -1
    at = start
    while True:
        token = (_INNER if depth > 0 else _TOKEN).match(data, at)
        if token is None:
            return comma, -1
        at = token.end()
        last = data[at - 1]
        if last == 0x2C:
            comma = at - 1
        elif last in b"[{":
            depth += 1
        elif last in b"]}":
            if depth == 0:
                return comma, at - 1
            depth -= 1


class MsgpackArray:
    """A MessagePack array."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._gathered: list[bytes] = []
        self._new = 0
        self._tail = b""
        self._at = 0  # the tail's position in the body
        self._announced = 0  # bytes of the item at the start of the tail, as far as known
        self._count = 0
        self._left: int | None = None  # items to come, once the array's head is there

    def add(self, data: bytes, more: bool) -> Elements:
        self._gathered.append(data)
        self._new += len(data)
        if more and self._new < GATHER // 4:
            return ()
        self._tail = b"".join((self._tail, *self._gathered))
        self._gathered.clear()
        self._new = 0
        if self._left is None:
            self._open(more)
        elements = self._elements() if self._left is not None else []
        if self._left == 0:
            if self._tail:
                raise located("trailing characters", self._at, None)
        elif not more:
            raise located("it ends too early", self._at + len(self._tail), None)
        else:
            size = max(self._announced, len(self._tail))
            if size > self._limits.max_item_bytes:
                raise item_too_large(self._count, size, self._limits.max_item_bytes)
        return elements

    def _open(self, more: bool) -> None:
        tail = self._tail
        if not tail:
            if more:
                return
            raise malformed(f"the body is empty: {USE_JSON}", position=0)
        first = tail[0]
        if first & 0xF0 == 0x90:
            head, self._left = 1, first & 0x0F
        elif first in (0xDC, 0xDD):
            head = 3 if first == 0xDC else 5
            if len(tail) < head:
                return
            self._left = int.from_bytes(tail[1:head], "big")
        else:
            raise malformed(f"the body is no array: {USE_JSON}", position=0)
        self._tail = tail[head:]
        self._at = head

    def _elements(self) -> list[bytes]:
        data = self._tail
        ends = self._walk(data)
        if not ends:
            return []
        some = data[: ends[-1]]
        elements = []
        start = 0
        for end in ends:
            elements.append(some[start:end])
            start = end
        check_msgpack(elements, some, self._count, self._at, self._limits)
        limit = self._limits.max_item_bytes
        if len(some) > limit:
            for index, element in enumerate(elements, self._count):
                if len(element) > limit:
                    raise item_too_large(index, len(element), limit)
        self._count += len(ends)
        self._at += start
        self._tail = data[start:]
        return elements

    def _walk(self, data: bytes) -> list[int]:
        """Where items end that are whole."""
        assert self._left is not None
        unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, **_ANY_SIZE)
        unpacker.feed(data)
        skip, tell = unpacker.skip, unpacker.tell
        ends: list[int] = []
        add = ends.append
        try:
            for _ in range(self._left):
                skip()
                add(tell())
        except msgpack.OutOfData:
            pass
        except (msgpack.UnpackException, ValueError):
            self._refuse(data, ends[-1] if ends else 0)
        self._left -= len(ends)
        at = ends[-1] if ends else 0
        self._announced = self._size(data, at) if at < len(data) and self._left else 0
        return ends

    def _size(self, data: bytes, at: int) -> int:
        """Bytes of the value that is not whole, as far as its head says."""
        first = data[at]
        if first not in _HEADS:
            return _SIZES[first]
        head, type = _HEADS[first]
        if at + head > len(data):
            return 0
        return head + type + int.from_bytes(data[at + 1 : at + head], "big")

    def _refuse(self, data: bytes, at: int) -> None:
        """Raise what is wrong with the value there, if msgspec finds it wrong, too."""
        try:
            _skip(memoryview(data)[at:])
        except msgspec.DecodeError as exc:
            raise syntax(exc, data, self._at + at) from exc
        except RecursionError as exc:
            raise too_deep_msgpack(data[at:], self._at + at, self._limits) from exc
        raise too_deep_msgpack(data[at:], self._at + at, self._limits)


_skip = msgspec.msgpack.Decoder(msgspec.Raw).decode
# Sizes are ours to limit.
_MOST = (1 << 31) - 1
_ANY_SIZE = dict.fromkeys(
    (
        "max_buffer_size",
        "max_str_len",
        "max_bin_len",
        "max_array_len",
        "max_map_len",
        "max_ext_len",
    ),
    _MOST,
)


def _sizes() -> list[int]:
    """Bytes of a value by its first byte; 0: it depends."""
    sizes = [0] * 256
    for first in (*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3):
        sizes[first] = 1
    for length in range(32):
        sizes[0xA0 + length] = 1 + length
    fixed = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5}
    fixed |= {0xD3: 9, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
    for first, size in fixed.items():
        sizes[first] = size
    return sizes


# Of texts, bytes and extensions: bytes of the head, and of an extension's type.
_HEADS = {
    first: (1 + width, type)
    for width, firsts, type in (
        *((1, b"\xc4\xd9", 0), (2, b"\xc5\xda", 0), (4, b"\xc6\xdb", 0)),
        *((1, b"\xc7", 1), (2, b"\xc8", 1), (4, b"\xc9", 1)),
    )
    for first in firsts
}
_SIZES = _sizes()
