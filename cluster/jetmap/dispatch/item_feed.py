"""A source of encoded items that arrive while the map runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from jetmap.wire import arrays
from jetmap.wire.messages import Format

from .flight import Piece
from .sources import ELEMENT_BYTES, Element


class ItemFeed:
    """A stream of encoded elements whose end is not known yet; ``put`` waits while it is full.

    Args:
        limit_bytes: Bytes that may wait to be taken.
    """

    wake: Callable[[], None] | None = None
    fails_at_once = True  # The body was malformed, or its client has gone.

    def __init__(self, format: Format, *, limit_bytes: int = 1 << 20) -> None:
        self._format = format
        self._limit = limit_bytes
        self._elements: deque[Element] = deque()
        self._bytes = 0
        self._count = 0
        self._closed = False
        self._room = asyncio.Event()
        self._room.set()
        self.error: BaseException | None = None

    @property
    def total(self) -> int | None:
        return self._count if self._closed else None

    @property
    def remaining(self) -> int | None:
        return len(self._elements) if self._closed else None

    @property
    def has_items(self) -> bool:
        return bool(self._elements)

    async def put(self, elements: Iterable[Element]) -> None:
        """Add elements, then wait until there is room for more."""
        for element in elements:
            self._elements.append(element)
            self._bytes += len(memoryview(element)) + ELEMENT_BYTES
            self._count += 1
        self._wake()
        if self._bytes > self._limit:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """End the stream: there are no more items."""
        self._closed = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        """End the stream, and the map with this error."""
        self.error = error
        self._closed = True
        self._room.set()
        self._wake()

    def take(self, count: int, max_bytes: int) -> Piece | None:
        taken: list[Element] = []
        size = 1  # With the array's head or commas.
        while self._elements and len(taken) < count:
            length = len(memoryview(self._elements[0])) + 1
            if taken and size + length > max_bytes:
                break
            taken.append(self._elements.popleft())
            size += length
        if not taken:
            return None
        start = self._count - len(self._elements) - len(taken)
        self._bytes -= size - 1 + (ELEMENT_BYTES - 1) * len(taken)
        if self._bytes <= self._limit // 2:
            self._room.set()
        return Piece(start, len(taken), arrays.join(taken, self._format))

    def _wake(self) -> None:
        if self.wake is not None:
            self.wake()
