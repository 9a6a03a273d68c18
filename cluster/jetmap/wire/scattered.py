"""Encoded arrays whose large elements stay where they are, until they are copied to their place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from .arrays import array_header

LEAST = 4 << 10  # Bytes of a large element: below, a copy costs less than the bookkeeping.


class Scattered:
    """One encoded array, in parts that nobody changes."""

    __slots__ = ("_parts", "_size")

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        """Number of bytes of the whole array."""
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)


def scattered(values: list[Any]) -> Scattered | None:
    """Encode bytes as a MessagePack array without a copy of them.

    None if some value is not bytes, or they are too small for that.
    """
    if not values or type(values[0]) is not bytes or len(values[0]) < LEAST:
        return None
    if set(map(type, values)) != {bytes} or sum(map(len, values)) < LEAST * len(values):
        return None
    parts = chain.from_iterable((_head(len(value)), value) for value in values)
    return Scattered([array_header(len(values)), *parts])


def _head(size: int) -> bytes:
    """Return the head of bytes in MessagePack. Raises OverflowError if it has none."""
    if size < 1 << 8:
        return bytes((0xC4, size))
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")
