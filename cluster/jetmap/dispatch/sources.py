"""Sources of a map's items, taken a chunk at a time; and the simplest: a list that is encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from jetmap.wire import arrays
from jetmap.wire.messages import Format

from .flight import Piece

Element = bytes | msgspec.Raw

ELEMENT_BYTES = 72  # Bytes that an encoded item of a list takes beside its own.


class Source(Protocol):
    """Items of a map, taken in their order; those that have their outcome may be left out.

    Attributes:
        wake: Called when a source that had nothing has items, or has ended.
        fails_at_once: Whether its error ends the map while items taken before are still computed.
        total: Number of items, once it is known.
        remaining: Number of items left to take, once it is known.
    """

    wake: Callable[[], None] | None
    fails_at_once: bool

    @property
    def total(self) -> int | None: ...
    @property
    def remaining(self) -> int | None: ...
    @property
    def has_items(self) -> bool: ...
    @property
    def error(self) -> BaseException | None: ...
    def take(self, count: int, max_bytes: int) -> Piece | None: ...


class TwoEnded(Protocol):
    """A source that may give its last items first."""

    def take_last(self, count: int, max_bytes: int) -> Piece | None:
        """Take up to ``count`` items from the end, once; None leaves them to ``take``."""
        ...


class RawItems:
    """A list of elements that are already encoded."""

    wake: Callable[[], None] | None = None
    fails_at_once = True
    error: BaseException | None = None

    def __init__(self, elements: Sequence[Element], format: Format) -> None:
        self._elements = elements
        self._format = format
        self._next = 0
        self._end = self.total = len(elements)

    @property
    def remaining(self) -> int:
        return self._end - self._next

    @property
    def has_items(self) -> bool:
        return self._next < self._end

    def take(self, count: int, max_bytes: int) -> Piece | None:
        """Take up to ``count`` items of at most ``max_bytes`` bytes together, but at least one."""
        start = self._next
        elements = self._elements[start : min(start + count, self._end)]
        if not elements:
            return None
        items = arrays.join(elements, self._format)
        while len(items) > max_bytes and len(elements) > 1:
            elements = elements[: fewer(len(elements), len(items), max_bytes)]
            items = arrays.join(elements, self._format)
        self._next = start + len(elements)
        return Piece(start, len(elements), items)

    def take_last(self, count: int, max_bytes: int) -> Piece | None:
        """Take up to ``count`` items from the end, once; None leaves them to ``take``."""
        start = max(self._next, self._end - count)
        items = arrays.join(self._elements[start : self._end], self._format)
        if len(items) > max_bytes or self._end < self.total or start == self._end:
            return None
        piece = Piece(start, self._end - start, items)
        self._end = start
        return piece


def fewer(count: int, size: int, max_bytes: int) -> int:
    """Estimate how many of ``count`` elements of ``size`` bytes fit; always less than ``count``."""
    return max(1, min(count - 1, int(count * max_bytes / size * 0.95)))
