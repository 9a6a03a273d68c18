"""Split and join encoded arrays without decoding their elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import cast

import msgspec

from . import runs
from .messages import Format

_split_json = msgspec.json.Decoder(list[msgspec.Raw]).decode
_split_msgpack = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode

NULL: dict[Format, bytes] = {
    "json": b"null", "msgpack": b"\xc0", "python": b"\xc0", "pickle": b"\xc0",
}  # fmt: skip


def split(array: bytes, format: Format) -> list[msgspec.Raw]:
    """Return the elements of one encoded array, each still encoded.

    Those of the format "pickle" may be slices of runs, which ``join`` and ``bytes`` take, too.
    """
    if format == "json":
        return _split_json(array)
    elements = _split_msgpack(array)
    return elements if format != "pickle" else cast("list[msgspec.Raw]", runs.split(elements))


def join(elements: Sequence[bytes | msgspec.Raw], format: Format) -> bytes:
    """Join encoded elements to one encoded array."""
    if len(elements) == 1 and format != "pickle":  # It may be large, and is copied once.
        return b"".join((b"[", elements[0], b"]") if format == "json" else (b"\x91", elements[0]))
    if format == "json":
        return b"[" + b",".join(elements) + b"]"
    if format == "pickle":
        elements = runs.merge(elements)
    return array_header(len(elements)) + b"".join(elements)


def array_header(count: int) -> bytes:
    """Return the head of a MessagePack array of ``count`` elements."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 65536:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def length(array: bytes) -> int:
    """Read the number of elements from the head of a MessagePack array; 0 if it is not one."""
    first = array[0] if array else 0
    if first & 0xF0 == 0x90:
        return first & 0x0F
    size = {0xDC: 3, 0xDD: 5}.get(first, 0)
    return int.from_bytes(array[1:size], "big")


def body(array: bytes, format: Format) -> bytes:
    """Return an encoded array without its head (and, for JSON, its end)."""
    if format == "json":
        return array[1:-1]
    return array[_head(array) :]


def body_view(array: bytes, format: Format) -> memoryview:
    """Return what ``body`` does, without a copy."""
    view = memoryview(array)
    return view[1:-1] if format == "json" else view[_head(array) :]


def size_around(count: int, arrays: int, format: Format) -> int:
    """Return the bytes of one array beside the bodies of the ``arrays`` that it is joined from.

    count: its elements; each of the arrays has some.
    """
    return len(array_header(count)) if format != "json" else 2 + max(0, arrays - 1)


def _head(array: bytes) -> int:
    """Return the bytes of a MessagePack array's head."""
    first = array[0]
    if first & 0xF0 == 0x90:
        return 1
    return 3 if first == 0xDC else 5


def concatenate(arrays: Iterable[bytes], count: int, format: Format) -> bytes:
    """Join encoded arrays to one, of ``count`` elements in all."""
    if format == "json":
        return b"[" + b",".join([a[1:-1] for a in arrays if len(a) > 2]) + b"]"
    return array_header(count) + b"".join([body(a, format) for a in arrays])


def nulls(count: int, format: Format) -> bytes:
    """Make an encoded array of ``count`` nulls."""
    return join(list(repeat(NULL[format], count)), format)


def select(array: bytes, ranges: Iterable[tuple[int, int]], format: Format) -> list[bytes]:
    """Return the parts of an encoded array at half-open ranges of positions, as arrays."""
    elements = split(array, format)
    return [join(elements[a:b], format) for a, b in ranges]
