"""The account of the bytes that a process holds for its maps, and what follows from a full one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Memory:
    """An account of bytes.

    Beyond ``limit``, gateways refuse bodies, and spool. If unread results are a quarter of it or
    more (slow uploads must hold up no map), a map gets its next chunk only when all chunks before
    it are done and read. Results on their way then come on top.

    Attributes:
        used: Bytes held, including those of a gateway.
        unread: Bytes of results, among them, that nobody has read yet.
    """

    limit: int
    used: int = 0
    unread: int = 0

    @property
    def is_full(self) -> bool:
        """Return whether maps are held up."""
        return self.used >= self.limit and 4 * self.unread >= self.limit

    def add_unread(self, size: int) -> None:
        """Add ``size`` bytes of results that wait for their reader."""
        self.used += size
        self.unread += size

    def read(self, size: int) -> None:
        """Take off ``size`` bytes of results that were read, or dropped."""
        self.used -= size
        self.unread -= size
