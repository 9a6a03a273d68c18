"""Encode a job's items piece by piece, never all at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

import msgspec

from jetmap.dispatch.objects import AsyncObjects
from jetmap.dispatch.outcomes import item_error
from jetmap.errors import JetmapError, Unencodable
from jetmap.wire import arrays

from .call import Call

if TYPE_CHECKING:
    from jetmap.jobs.upload import Upload

# Bytes and items of one piece, at most.
PIECE_BYTES = 256 << 10
PIECE_ITEMS = 16_384
# Seconds for which encoding one piece may hold up the event loop.
PIECE_SECONDS = 0.01


class EncodedItems:
    """A job's items, encoded: a list of elements at a time, as many as a few milliseconds allow.

    Iterate in a thread over an iterable, or asynchronously over any items, inside its context.

    Args:
        max_item: Bytes of one encoded item, at most.
    """

    def __init__(
        self, call: Call, items: Iterable[Any] | AsyncIterable[Any], max_item: int
    ) -> None:
        self._source = call.source(items, keep=False, max_item=max_item, apart=True)
        self._max_item = max_item
        self._count = 64
        self._taken = 0

    def __iter__(self) -> Iterator[list[msgspec.Raw]]:
        while (elements := self._next()) is not None:
            yield elements

    async def __aiter__(self) -> AsyncIterator[list[msgspec.Raw]]:
        woken = asyncio.Event()
        self._source.wake = woken.set
        while True:
            elements = self._next()
            if elements is not None:
                yield elements
                await asyncio.sleep(0)  # Give other tasks a turn even while there is room.
            elif self._source.total is not None and not self._source.has_items:
                return
            else:
                await woken.wait()
                woken.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if isinstance(self._source, AsyncObjects):
            await self._source.aclose()

    def _next(self) -> list[msgspec.Raw] | None:
        """Return the next elements; None while there are none.

        Raises what the caller's iterable raised, and Unencodable with the item's index.
        """
        began = time.perf_counter()
        piece = self._source.take(self._count, PIECE_BYTES)
        if piece is None:
            if self._source.error is not None:
                raise self._source.error
            return None
        if piece.error is not None:
            raise item_error(piece.error)
        elements = arrays.split(piece.encoded, "msgpack")
        if len(piece.items) > self._max_item:
            self._check(elements)
        self._taken += piece.count
        seconds = time.perf_counter() - began
        if seconds > PIECE_SECONDS:
            self._count = max(1, self._count // 2)
        elif seconds < PIECE_SECONDS / 3:
            self._count = min(PIECE_ITEMS, 2 * self._count)
        return elements

    def _check(self, elements: list[msgspec.Raw]) -> None:
        for index, element in enumerate(elements, self._taken):
            if (size := len(memoryview(element))) > self._max_item:
                raise Unencodable(
                    index,
                    "ValueError",
                    f"the item takes {size:,} bytes; the limit is {self._max_item:,} "
                    "(setting max_item_bytes)",
                )


async def abort(upload: Upload) -> None:
    """Remove an upload while another error is on its way."""
    # Other processes remove what this one cannot: they miss its lease.
    with contextlib.suppress(JetmapError):
        await asyncio.shield(upload.abort())
