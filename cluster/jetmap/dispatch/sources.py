"""Sources of a map's items: taken a chunk at a time, encoded once, never all at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, Protocol

import msgspec

from jetmap.wire import arrays
from jetmap.wire.messages import ErrorRecord, Format

from .flight import Piece

Element = bytes | msgspec.Raw
Encode = Callable[[list[Any]], bytes]

ELEMENT_BYTES = 72  # Bytes that an encoded item of a list takes beside its own.
_STRIDE = 1 << 20  # Objects to encode at once; fewer, for a while, after an object that failed.


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


class RawItems:
    """A list of elements that are already encoded."""

    wake: Callable[[], None] | None = None
    fails_at_once = True
    error: BaseException | None = None

    def __init__(self, elements: Sequence[Element], format: Format) -> None:
        self._elements = elements
        self._format = format
        self._next = 0
        self.total = len(elements)

    @property
    def remaining(self) -> int:
        return self.total - self._next

    @property
    def has_items(self) -> bool:
        return self._next < self.total

    def take(self, count: int, max_bytes: int) -> Piece | None:
        """Take up to ``count`` items of at most ``max_bytes`` bytes together, but at least one."""
        start = self._next
        elements = self._elements[start : start + count]
        if not elements:
            return None
        items = arrays.join(elements, self._format)
        while len(items) > max_bytes and len(elements) > 1:
            elements = elements[: _fewer(len(elements), len(items), max_bytes)]
            items = arrays.join(elements, self._format)
        self._next = start + len(elements)
        return Piece(start, len(elements), items)


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


class Objects:
    """Python objects from any iterable, encoded as they are taken.

    Args:
        keep: Keep each item until ``give_back`` asks for it.
        max_item: Bytes of one encoded item. A larger item fails, as does one that has no encoding.
    """

    wake: Callable[[], None] | None = None
    fails_at_once = False  # A loop over the items would have done those before, too.

    def __init__(self, items: Iterable[Any], encode: Encode, *, keep: bool, max_item: int) -> None:
        self._items: Iterator[Any] = iter(items)
        self._returned: deque[Any] = deque()
        self._encode = encode
        self._kept: dict[int, Any] | None = {} if keep else None
        self._max_item = max_item
        self._taken = 0
        self._stride = _STRIDE
        self._length = len(items) if isinstance(items, Sized) else None
        self._ended = self._length == 0
        self.error: BaseException | None = None

    @property
    def total(self) -> int | None:
        return self._taken + len(self._returned) if self._ended else self._length

    @property
    def remaining(self) -> int | None:
        return None if self.total is None else self.total - self._taken

    @property
    def has_items(self) -> bool:
        return bool(self._returned) or not self._ended

    def take(self, count: int, max_bytes: int) -> Piece | None:
        objects = self._next(min(count, self._stride))
        if not objects:
            return None
        piece = self._encoded(objects, max_bytes)
        used = piece.count
        if self._kept is not None:
            for offset, item in enumerate(objects[:used]):
                self._kept[self._taken + offset] = item
        self._returned.extendleft(reversed(objects[used:]))
        self._taken += used
        if self._length is not None and self._taken >= self._length:
            self._ended = True
        return piece

    def give_back(self, index: int) -> Any:
        """Return the item at this index, and forget it."""
        assert self._kept is not None
        return self._kept.pop(index)

    def _next(self, count: int) -> list[Any]:
        objects = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        if len(objects) < count and not self._ended:
            fresh: list[Any] = []
            try:
                fresh.extend(islice(self._items, count - len(objects)))
            except Exception as error:
                # The caller's iterable raised: the map ends with that error behind its items.
                self.error = error
            if len(fresh) < count - len(objects):
                self._ended = True
            objects += fresh
        return objects

    def _encoded(self, objects: list[Any], max_bytes: int) -> Piece:
        """Encode the first of these objects, as many as fit; a bad one is found by halving."""
        while True:
            alone = len(objects) == 1
            try:
                items = self._encode(objects)
            except Exception as error:
                if alone:
                    return self._refused(error, f"the item cannot be encoded: {error}")
                objects = objects[: len(objects) // 2]
                self._stride = len(objects)
                continue
            if len(items) <= max_bytes or (alone and len(items) <= self._max_item):
                self._stride = min(_STRIDE, 2 * self._stride)
                return Piece(self._taken, len(objects), items)
            if alone:
                message = (
                    f"the item takes {len(items):,} bytes; the limit is {self._max_item:,} "
                    "(setting max_item_bytes, within the broker's max_payload)"
                )
                return self._refused(ValueError(), message)
            objects = objects[: _fewer(len(objects), len(items), max_bytes)]

    def _refused(self, error: Exception, message: str) -> Piece:
        self._stride = 1
        record = ErrorRecord(self._taken, "unencodable", type(error).__name__, message)
        return Piece(self._taken, 1, b"", error=record)


class AsyncObjects(Objects):
    """Python objects from an async iterable, read ahead by a task.

    Args:
        read_ahead: Items that may wait to be taken.
    """

    def __init__(
        self,
        items: AsyncIterable[Any],
        encode: Encode,
        *,
        keep: bool,
        max_item: int,
        read_ahead: int = 10_000,
    ) -> None:
        super().__init__((), encode, keep=keep, max_item=max_item)
        self._length = None
        self._ended = False
        self._read_ahead = read_ahead
        self._room = asyncio.Event()
        self._reader = asyncio.get_running_loop().create_task(self._read(items))

    @property
    def has_items(self) -> bool:
        return bool(self._returned)

    async def aclose(self) -> None:
        """Stop reading, and let the iterable clean up."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    def _next(self, count: int) -> list[Any]:
        objects = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        if len(self._returned) < self._read_ahead:
            self._room.set()
        return objects

    async def _read(self, items: AsyncIterable[Any]) -> None:
        try:
            iterator = aiter(items)
            try:
                async for item in iterator:
                    self._returned.append(item)
                    if len(self._returned) == 1 and self.wake is not None:
                        self.wake()
                    if len(self._returned) >= self._read_ahead:
                        self._room.clear()
                        await self._room.wait()
            finally:
                close = getattr(iterator, "aclose", None)
                if close is not None:
                    await close()
        except Exception as error:
            # The caller's iterable raised: the map ends with that error.
            self.error = error
        finally:
            self._ended = True
            if self.wake is not None:
                self.wake()


def _fewer(count: int, size: int, max_bytes: int) -> int:
    """Estimate how many of ``count`` elements of ``size`` bytes fit; always less than ``count``."""
    return max(1, min(count - 1, int(count * max_bytes / size * 0.95)))
