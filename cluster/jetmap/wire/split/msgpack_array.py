"""Split a MessagePack array."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import msgpack
import msgspec

from jetmap.errors import Malformed
from jetmap.settings import LimitSettings
from jetmap.wire.arrays import array_header
from jetmap.wire.check import located, not_utf8, syntax, too_deep

from .msgpack_faults import find_fault, size_of
from .splitter import Splitter, item_too_large

_BYTE = re.compile(r" \(byte \d+\)$")
_WRONG = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, OverflowError)
_decode = msgspec.msgpack.Decoder().decode
_skip = msgspec.msgpack.Decoder(msgspec.Raw).decode
# Sizes are limited here, not by msgpack.
_ANY_SIZE = dict.fromkeys(
    (
        "max_buffer_size",
        "max_str_len",
        "max_bin_len",
        "max_array_len",
        "max_map_len",
        "max_ext_len",
    ),
    (1 << 31) - 1,
)


class MsgpackArray(Splitter):
    """Split a MessagePack array: msgpack finds the ends of elements (decision 0011), and msgspec
    checks each batch. advice: what to send instead of something else."""

    step = 64 * 1024

    def __init__(self, limits: LimitSettings, advice: str = "") -> None:
        super().__init__(limits)
        self._advice = f": {advice}" if advice else ""
        self._at = 0  # the tail's position in the body
        self._end = 0  # the position after the last element that is complete
        self._count = 0
        self._left: int | None = None  # elements to come, once the array's head is there
        self._unpacker: Any = msgpack.Unpacker(raw=True, strict_map_key=False, **_ANY_SIZE)

    def _split(self, data: bytes) -> Sequence[bytes]:
        if self._left is None:
            data = self._open(self._tail + data)
        elements = self._elements(data) if self._left is not None else []
        limit = self._limits.max_item_bytes
        if self._left == 0:
            if self._tail:
                raise located("trailing characters", self._at, None)
        elif self._closed:
            raise located("it ends too early", self._at + len(self._tail), None)
        elif self._tail and self._left is not None:
            size = max(size_of(self._tail), len(self._tail))
            if size > limit:
                raise item_too_large(self._count, size, limit)
        return elements

    def _open(self, data: bytes) -> bytes:
        """Read the array's head; return what follows."""
        self._tail = b""
        if not data:
            if self._closed:
                raise Malformed(f"the body is empty{self._advice}", 0)
            return b""
        first = data[0]
        if first & 0xF0 == 0x90:
            head, count = 1, first & 0x0F
        elif first in (0xDC, 0xDD):
            head = 3 if first == 0xDC else 5
            count = int.from_bytes(data[1:head], "big")
        else:
            raise Malformed(f"the body is not an array{self._advice}", 0)
        if len(data) < head:
            self._tail = data
            return b""
        self._left = count
        self._at = head
        return data[head:]

    def _elements(self, new: bytes) -> list[bytes]:
        data = self._tail + new
        ends = self._ends(data, new)
        if not ends:
            self._tail = data
            return []
        some = data[: ends[-1]]
        elements = []
        start = 0
        for end in ends:
            elements.append(some[start:end])
            start = end
        self._check(elements, some)
        limit = self._limits.max_item_bytes
        if len(some) > limit:
            for index, element in enumerate(elements, self._count):
                if len(element) > limit:
                    raise item_too_large(index, len(element), limit)
        self._count += len(ends)
        self._at += start
        self._tail = data[start:]
        return elements

    def _ends(self, data: bytes, new: bytes) -> list[int]:
        """Return the ends of the elements that are complete, as positions in ``data``."""
        assert self._left is not None
        ends: list[int] = []
        add, unpacker = ends.append, self._unpacker
        try:
            unpacker.feed(new)
            skip, tell = unpacker.skip, unpacker.tell
            for _ in range(self._left):
                skip()
                add(tell())
        except msgpack.OutOfData:
            pass
        except (msgpack.UnpackException, ValueError):
            self._refuse(data, ends[-1] - self._end if ends else 0)
        self._left -= len(ends)
        if self._end:
            base = self._end
            ends = [end - base for end in ends]
        self._end += ends[-1] if ends else 0
        return ends

    def _check(self, elements: list[bytes], some: bytes) -> None:
        """Check elements that are complete. some: all of them in one."""
        at, limits = self._at, self._limits
        most = limits.max_depth
        try:
            values = _decode(array_header(len(elements)) + some)
        except _WRONG as exc:
            self._locate(some, exc)
            for index, element in enumerate(elements, self._count):
                try:
                    _decode(element)
                except RecursionError as error:
                    raise too_deep(at, most) from error
                except _WRONG as error:
                    # Where the decoder noticed it may be far behind.
                    text = _BYTE.sub("", str(error))
                    raise located(f"item {index}: {text}", at, None) from error
                at += len(element)
            raise located(str(exc), at, None) from exc
        if len(some) <= most:
            return  # Each level takes a byte at least: only long elements can be too deep.
        long = [
            value
            for value, element in zip(values, elements, strict=True)
            if isinstance(value, list | dict) and len(element) > most
        ]
        if long and _levels(long, most + 1) > most + 1:
            fault = find_fault(some, most)
            raise too_deep(at + (fault.position if fault else 0), most)

    def _refuse(self, data: bytes, at: int) -> NoReturn:
        """Raise the error for the value there, which msgpack cannot skip."""
        cause: RecursionError | None = None
        try:
            _skip(memoryview(data)[at:])
        except msgspec.DecodeError as exc:
            raise syntax(exc, data, self._at + at) from exc
        except RecursionError as exc:
            cause = exc
        self._locate(data[at:], cause, at)
        raise too_deep(self._at + at, self._limits.max_depth) from cause

    def _locate(self, data: bytes, cause: Exception | None, offset: int = 0) -> None:
        """Raise the error for text that is not UTF-8, or for nesting; else return."""
        fault = find_fault(data, self._limits.max_depth)
        if fault is None:
            return
        position = self._at + offset + fault.position
        if fault.kind == "utf8":
            raise not_utf8(position) from cause
        raise too_deep(position, self._limits.max_depth) from cause


def _levels(value: Sequence[object], most: int) -> int:
    """Count how deep lists and maps nest, up to one more than ``most``."""
    levels = 0
    level: Sequence[object] = [value]
    while level and levels <= most:
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)  # type: ignore[attr-defined]
            if isinstance(inner, list | dict)
        ]
        levels += 1
    return levels
