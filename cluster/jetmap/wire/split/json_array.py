"""Split a JSON array that arrives in pieces."""

from __future__ import annotations

import re

import msgspec

from jetmap.errors import Malformed
from jetmap.settings import LimitSettings
from jetmap.wire.check import (
    depth_error,
    located,
    syntax,
    too_deep,
)

from .splitter import BOM, Elements, Splitter, item_too_large
from .whole_json import SPACE, advice_ending, decode, split_array

# Bytes at the end in which a comma between elements is looked for first.
WINDOW = 4096


class JsonArray(Splitter):
    """Split a JSON array. White space after an element counts as part of it.

    advice: what to send instead of something else.
    """

    step = 256 * 1024

    def __init__(self, limits: LimitSettings, advice: str = "") -> None:
        super().__init__(limits)
        self._advice = advice
        self._at = 0  # the tail's position in the body
        self._count = 0
        self._opened = False
        self._ended = False  # the closing bracket is there
        # Bytes of the tail without a cut, and the state after them: a large item is scanned once.
        self._seen = 0
        self._depth = 0
        self._inside = False

    def _split(self, data: bytes) -> Elements:
        self._tail = self._strip(self._tail + data if self._tail else data)
        if not self._opened:
            self._open()
        elements = self._elements() if self._opened and not self._ended else ()
        if self._ended:
            if self._tail:
                raise located("JSON is malformed: trailing characters", self._at, None)
        elif self._closed:
            self._piece(b"[" + self._tail)
            raise located("JSON is malformed: it ends too early", self._at, None)
        elif len(self._tail) > self._limits.max_item_bytes:
            self._refuse_tail()
        return elements

    def _open(self) -> None:
        if self._at == 0 and self._tail and BOM.startswith(self._tail[: len(BOM)]):
            if len(self._tail) >= len(BOM):
                self._at = len(BOM)
                self._tail = self._strip(self._tail[len(BOM) :])
            elif not self._closed:
                return
        if self._tail[:1] == b"[":
            self._opened = True
            self._at += 1
            self._tail = self._strip(self._tail[1:])
        elif self._tail or self._closed:
            if self._closed:  # It may be malformed as well, or empty.
                split_array(self._tail, self._limits, offset=self._at, advice=self._advice)
            raise Malformed("the body is not an array" + advice_ending(self._advice), self._at)

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
        # The comma or bracket is a guess, and right if what precedes it is well-formed.
        elements = self._piece(b"[" + (data[: end + 1] if end >= 0 else data[:comma] + b"]"))
        if not elements:
            if end < 0:
                raise located("JSON is malformed: expected a value", self._at + comma, None)
            if self._count:
                raise located("JSON is malformed: trailing comma in array", self._at + end, None)
        self._count += len(elements)
        self._ended = end >= 0
        taken = max(comma, end) + 1
        self._at += taken
        self._tail = self._strip(data[taken:])
        return elements

    def _piece(self, array: bytes) -> list[msgspec.Raw]:
        """Split elements after a bracket that was put in front of them."""
        return split_array(array, self._limits, offset=self._at - 1, first=self._count)

    def _strip(self, data: bytes) -> bytes:
        rest = data.lstrip(SPACE)
        self._at += len(data) - len(rest)
        return rest

    def _refuse_tail(self) -> None:
        """Raise the error for an item that is too large, or for one that is malformed as well."""
        tail = self._tail
        depth = self._limits.max_depth
        deep = depth_error(tail, depth)
        if deep < len(tail):
            raise too_deep(self._at + deep, depth)
        try:
            decode(b"[" + tail)
        except msgspec.DecodeError as exc:
            error = syntax(exc, b"[" + tail, self._at - 1)
            if error.position < self._at + len(tail):
                raise error from exc
        raise item_too_large(self._count, len(tail), self._limits.max_item_bytes)


_SHAPE = bytes.maketrans(b"{}", b"[]")
_NO_SHAPE = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*"')
_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
# Up to the next bracket (or comma) outside strings; possessive, so that nothing is tried twice.
_INNER = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+[\[\]{}]', re.DOTALL)
_TOKEN = re.compile(rb'(?:[^"\[\]{},]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+[\[\]{},]', re.DOTALL)


def _cut(data: bytes, seen: int, depth: int, inside: bool) -> tuple[int, int]:
    """Find the last comma between elements, and the bracket that ends the array; -1 if absent.

    data: from the start of an element on. seen: its first bytes, which hold neither. depth,
    inside: the state after them. The answer is right for well-formed JSON, and a guess for other
    data.
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
    """Return ``at``, or a position before it that no backslash precedes."""
    while at > least and data[at - 1] == 0x5C:
        at -= 1
    return max(at, least)


def _state(data: bytes, depth: int, inside: bool) -> tuple[int, bool]:
    """Count the open brackets at the end of data, and tell whether that is inside a string.

    depth, inside: the same at its start.
    """
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
