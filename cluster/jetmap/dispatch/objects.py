"""Sources of Python objects: encoded once, as they are taken, and never all at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

from jetmap.background import Background
from jetmap.wire.messages import ErrorRecord
from jetmap.wire.scattered import Scattered, scattered

from .flight import Piece
from .sources import fewer

Encode = Callable[[list[Any]], bytes]

_STRIDE = 1 << 20  # Objects to encode at once; fewer, for a while, after an object that failed.


class Objects:
    """Python objects from any iterable, encoded as they are taken.

    Args:
        keep: Keep each item until ``give_back`` asks for it.
        max_item: Bytes of one encoded item. A larger item fails, as does one that has no encoding.
        scatters: Whether large bytes may be ``Scattered`` instead of encoded.
    """

    wake: Callable[[], None] | None = None
    fails_at_once = False  # A loop over the items would have done those before, too.

    def __init__(
        self,
        items: Iterable[Any],
        encode: Encode,
        *,
        keep: bool,
        max_item: int,
        scatters: bool = False,
    ) -> None:
        self._items: Iterator[Any] = iter(items)
        # A list is cut, which takes a tenth of the time of an iterator.
        self._list = items if type(items) is list else None
        self._at = 0  # Index behind the last item that was cut off.
        self._returned: deque[Any] = deque()
        self._encode = encode
        self._kept: dict[int, Any] | None = {} if keep else None
        self._max_item = max_item
        self._scatters = scatters
        self._taken = 0
        self._last = 0  # Items taken from the end.
        self._stride = _STRIDE
        self._length = len(items) if isinstance(items, Sized) else None
        self._ended = False
        self.error: BaseException | None = None
        if self._length == 0:
            self._on_length()

    @property
    def total(self) -> int | None:
        if not self._ended:
            return self._length
        return self._taken + len(self._returned) + self._last

    @property
    def remaining(self) -> int | None:
        return None if self.total is None else self.total - self._taken - self._last

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
        if self._length is not None and self._taken + self._last >= self._length:
            self._on_length()
        return piece

    def take_last(self, count: int, max_bytes: int) -> Piece | None:
        """Take up to ``count`` items from the end of a list, once.

        None leaves them to ``take``: they have no encoding, or do not fit.
        """
        end = self._length
        if self._list is None or self._kept is not None or self._last or end is None:
            return None
        start = max(end - count, self._at)
        objects = self._list[start:end]
        if not objects or len(objects) < end - start:  # Its owner has made it shorter.
            return None
        try:
            items = self._encoding(objects)
        except Exception:
            return None
        if len(items) > max_bytes:
            return None
        self._last = len(objects)
        if self._taken + self._last >= end:
            self._on_length()
        return Piece(start, len(objects), items)

    def _on_length(self) -> None:
        """End with the last item, if it is the last: a length may be an estimate, as that of tqdm
        is, or count something else, as that of a pandas frame does.
        """
        if self._list is not None:
            self._ended = True
            return
        self._length = None
        if not self._returned:
            self._returned.extend(self._fresh(1))
        self._ended = not self._returned

    def give_back(self, index: int) -> Any:
        """Return the item at this index, and forget it."""
        assert self._kept is not None
        return self._kept.pop(index)

    def _next(self, count: int) -> list[Any]:
        objects = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        missing = count - len(objects)
        if not missing or self._ended:
            return objects
        fresh = self._fresh(missing)
        if len(fresh) < missing:
            self._ended = True
        return objects + fresh if objects else fresh

    def _fresh(self, count: int) -> list[Any]:
        """Take the next items, fewer only at their end."""
        if self._list is not None:
            at, self._at = self._at, self._at + count
            if self._last and self._length is not None:
                self._at = min(self._at, self._length - self._last)
            return self._list[at : self._at]
        fresh: list[Any] = []
        try:
            fresh.extend(islice(self._items, count))
        except BaseException as error:
            # The caller's iterable raised: the map ends with that error behind its items. The
            # reader gets it whatever it is, because this may run in a thread of the library.
            self.error = error
            if isinstance(error, StopAsyncIteration):
                # It would end the reader's loop as if these were all items.
                self.error = RuntimeError("the items raised StopAsyncIteration")
                self.error.__cause__ = error
        return fresh

    def _encoding(self, objects: list[Any]) -> bytes | Scattered:
        found = scattered(objects) if self._scatters else None
        return found if found is not None else self._encode(objects)

    def _encoded(self, objects: list[Any], max_bytes: int) -> Piece:
        """Encode the first of these objects, as many as fit; a bad one is found by halving."""
        while True:
            alone = len(objects) == 1
            try:
                items = self._encoding(objects)
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
                    "(setting max_item_bytes)"
                )
                return self._refused(ValueError(), message)
            objects = objects[: fewer(len(objects), len(items), max_bytes)]

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
        scatters: bool = False,
        read_ahead: int = 10_000,
    ) -> None:
        super().__init__((), encode, keep=keep, max_item=max_item, scatters=scatters)
        self._length = None
        self._ended = False
        self._read_ahead = read_ahead
        self._room = asyncio.Event()
        self._background = Background("items")
        self._background.spawn(self._read(items), "read")

    @property
    def has_items(self) -> bool:
        return bool(self._returned)

    @property
    def is_reading(self) -> bool:
        """Return whether the iterable has not come to its end."""
        return len(self._background) > 0

    async def aclose(self) -> None:
        """Stop reading, and let the iterable clean up."""
        await self._background.close()

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
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # Nobody reads any more.
            # The caller's iterable raised, perhaps because something that it awaits was cancelled:
            # the map ends with that error.
            self.error = error
        finally:
            self._ended = True
            if self.wake is not None:
                self.wake()
