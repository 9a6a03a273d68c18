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
    first = array[0]
    if first & 0xF0 == 0x90:
        return array[1:]
    return array[3:] if first == 0xDC else array[5:]


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
