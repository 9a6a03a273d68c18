"""Counts what a client sends beside its bodies: heads, chunk sizes and extensions, trailers."""

from __future__ import annotations

# Bytes beside the body that each of its bytes may cost: chunks of one byte cost six.
_CREDIT = 16


class Overhead:
    """Bytes that brought no progress, of which there may be ``limit`` at most.

    ``progress`` in between: a head was complete (its bytes are forgotten), or so many bytes of a
    body came. ``fed`` at the end of each piece, which may be as long as the limit: of a head that
    begins within a piece, that piece is not counted.
    """

    __slots__ = ("_body", "_cleared", "_limit", "bytes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0
        self._body = 0
        self._cleared = False

    def progress(self, body: int = 0) -> None:
        if body:
            self._body += body
        else:
            self._cleared = True

    def fed(self, size: int) -> bool:
        """Count a piece; return whether it is too much now."""
        if self._cleared:
            self.bytes = 0
        else:
            self.bytes = max(0, self.bytes + size - self._body * (1 + _CREDIT))
        self._cleared = False
        self._body = 0
        return self.bytes > self._limit
