"""How many bytes a process holds for its maps. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

ELEMENT_BYTES = 72  # What an encoded item of a list takes beside its bytes.


@dataclass(slots=True, eq=False)
class Memory:
    """used: all of it, with what a gateway adds. unread: of it, results that nobody has read yet.

    limit: beyond it gateways refuse bodies, and spool; and if unread results are a quarter or
    more (bodies that arrive slowly must hold up no map), a map gets its next chunk only when all
    before it is done and read. What is on its way then comes on top.
    """

    limit: int
    used: int = 0
    unread: int = 0

    @property
    def is_full(self) -> bool:
        """Whether maps are held up."""
        return self.used >= self.limit and 4 * self.unread >= self.limit

    def read(self, size: int) -> None:
        """So many bytes of results were read; negative: so many have come."""
        self.used -= size
        self.unread -= size
