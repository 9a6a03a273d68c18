"""The items of a map that are to be sent again, cut anew. No I/O."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jetmap.wire import arrays
from jetmap.wire.messages import Format

from .flight import Piece


@dataclass(eq=False)
class _Entry:
    """A piece that waits."""

    piece: Piece  # Its ``items`` are those that it had when it came back.
    elements: Sequence[bytes] = ()  # These items, split once: many cuts cost no more than one.
    offset: int = 0  # Elements that have been cut off already.


class Returned:
    """The pieces of one map that came back, the earliest items first."""

    def __init__(self, format: Format) -> None:
        self.count = 0
        self._format: Format = format
        self._entries: list[_Entry] = []  # Sorted, the earliest last.

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> tuple[int, int]:
        """The range of items of the first piece."""
        piece = self._entries[-1].piece
        return piece.start, piece.start + piece.count

    def put(self, piece: Piece) -> None:
        """Add a piece in its place."""
        self.count += piece.count
        insort(self._entries, _Entry(piece), key=lambda entry: -entry.piece.start)

    def pop(self, count: int | None = None) -> Piece:
        """Cut off the first piece, or its first ``count`` items."""
        entry = self._entries[-1]
        piece = entry.piece
        if count is None or count >= piece.count:
            self._entries.pop()
            self.count -= piece.count
            if not entry.elements:
                return piece
            return replace(piece, items=arrays.join(entry.elements[entry.offset :], self._format))
        if not entry.elements:
            entry.elements = arrays.split(piece.items, self._format)
        end = entry.offset + count
        head = arrays.join(entry.elements[entry.offset : end], self._format)
        entry.offset = end
        entry.piece = replace(piece, start=piece.start + count, count=piece.count - count)
        self.count -= count
        return replace(piece, count=count, items=head)
