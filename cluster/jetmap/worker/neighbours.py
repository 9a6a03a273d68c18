"""The dispatchers of this host, as a worker sees them: their items and its values in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jetmap.wire.messages import Chunk, Region, ValuesPlace
from jetmap.wire.shared_memory import Segment, View, Writer
from jetmap.wire.worker_start import Joined

if TYPE_CHECKING:
    from jetmap.functions.function import Function
    from jetmap.wire.scattered import Scattered


class NeighbourSegments:
    """Read items from the dispatchers' segments, and write values to this worker's own.

    The agent has opened both kinds; its child opens them again by their descriptors there.
    """

    def __init__(self, agent: int) -> None:
        self._agent = agent
        self._items: dict[str, View] = {}
        self._values: Writer | None = None
        self._arena = 0

    def __contains__(self, inbox: str) -> bool:
        return inbox in self._items

    def join(self, joined: Joined) -> None:
        """Share memory with a dispatcher. Raises OSError or ValueError."""
        if self._values is None:
            self._values = Writer(Segment(self._open(joined.values, os.O_RDWR)))
            self._arena = joined.arena
        fd = self._open(joined.items, os.O_RDONLY)
        try:
            self._items[joined.inbox] = View(fd)
        finally:
            os.close(fd)

    def leave(self, inbox: str) -> None:
        """Let go of a dispatcher's segment."""
        if (view := self._items.pop(inbox, None)) is not None:
            view.close()

    def items(self, chunk: Chunk) -> bytes | None:
        """Copy a chunk's items; None if they are gone: the chunk has ended."""
        items: bytes | None = self._take(bytes, chunk)
        return items

    def decoded(self, chunk: Chunk, function: Function) -> list[Any] | None:
        """Decode a chunk's items where they are.

        None if they have to be copied first, are gone, or do not fit, as ``compute`` then finds.
        """
        try:
            codec = function.item
            items = self._take(lambda data: codec.decode_owned(data, chunk.format), chunk)
        except Exception:
            return None
        return items if items is not None and len(items) == chunk.count else None

    def _take(self, take: Callable[[memoryview], Any], chunk: Chunk) -> Any:
        view = self._items.get(chunk.inbox)
        if view is None or chunk.at is None or chunk.at.region is None:
            return None
        return view.read_by(take, chunk.at.region)

    def put(self, values: bytes | Scattered) -> ValuesPlace | None:
        """Write values; None if they do not fit now."""
        assert self._values is not None
        self._values.collect()
        region: Region | None = self._values.put(values)
        return None if region is None else ValuesPlace(self._arena, region)

    def close(self) -> None:
        """Let go of all segments, in a forked child."""
        for inbox in list(self._items):
            self.leave(inbox)
        if self._values is not None:
            self._values.segment.close()
            self._values = None

    def _open(self, fd: int, flags: int) -> int:
        return os.open(f"/proc/{self._agent}/fd/{fd}", flags | os.O_CLOEXEC)
