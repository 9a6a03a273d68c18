"""The interface of a splitter, and the part that all splitters share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from jetmap.errors import TooLarge
from jetmap.settings import LimitSettings

Elements = Sequence[bytes | msgspec.Raw]

# Bytes of an element that is copied a bounded number of times while it arrives.
LARGE_BYTES = 256 * 1024

BOM = b"\xef\xbb\xbf"  # The mark that some editors and shells put before UTF-8.

# No element is complete: feed more bytes, or close.
NEED_DATA: Elements = ()


class Splitter(ABC):
    """Split encoded bytes into elements, which stay encoded.

    ``feed`` bytes cut anywhere, ``close`` at the end of the input, and after each of both call
    ``next_elements`` until it returns NEED_DATA. Memory holds at most one element and what was
    fed last. Elements come in batches, because a call for each would cost more than splitting.
    """

    # Bytes that are split at a time; fewer wait until more are fed.
    step = 1

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._tail = b""  # fed, and not in a complete element
        self._fed: list[bytes] = []
        self._new = 0  # bytes of them
        self._closed = False

    def feed(self, data: bytes) -> None:
        self._fed.append(data)
        self._new += len(data)

    @property
    def held(self) -> int:
        """Bytes that were fed and are not in a complete element yet."""
        return len(self._tail) + self._new

    def close(self) -> None:
        """End the input: the bytes fed so far must be whole."""
        self._closed = True
        self._new = max(self._new, self.step)

    def next_elements(self) -> Elements:
        """Return the elements that are complete now, or NEED_DATA.

        Raises Malformed, with the position, or TooLarge for an element that is too large or
        too deep.
        """
        if self._new < self.step or (
            LARGE_BYTES < len(self._tail) > self._new and self._can_wait()
        ):
            return NEED_DATA
        data = b"".join(self._fed)
        self._fed.clear()
        self._new = 0
        return self._split(data)

    def _can_wait(self) -> bool:
        """Return whether to wait until as much is fed as the tail has.

        A large element is then copied a bounded number of times.
        """
        large = len(self._tail) + self._new > self._limits.max_item_bytes
        return not self._closed and not large

    @abstractmethod
    def _split(self, data: bytes) -> Elements:
        """Split the tail and the data behind it; keep the new tail."""


def item_too_large(index: int, size: int, limit: int, line: int | None = None) -> TooLarge:
    """Make the error for an item that is too large. size, limit: bytes."""
    where = "" if line is None else f" in line {line}"
    return TooLarge(
        f"item {index}{where} is {size} bytes or more; an item may have {limit} "
        "(max_item_bytes): send a reference to large data instead",
        setting="max_item_bytes",
        limit=limit,
        value=size,
        index=index,
    )
