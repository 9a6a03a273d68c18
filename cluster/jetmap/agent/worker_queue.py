"""The chunks that one worker was given, in the order in which it answers them. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from .holdings import Holding


@dataclass(eq=False)
class Given:
    """number: a worker counts the chunks that it is given, from 1 on, and so do we. revoked: it
    was handed back; all that is to come of it is that the worker passes over it."""

    number: int
    held: Holding
    revoked: bool = False


class Line:
    """first: what the worker is in, or will be in next."""

    def __init__(self) -> None:
        self._given: deque[Given] = deque()
        self._last = 0

    def __len__(self) -> int:
        return len(self._given)

    def __iter__(self) -> Iterator[Given]:
        return iter(self._given)

    @property
    def first(self) -> Given | None:
        return self._given[0] if self._given else None

    @property
    def last(self) -> int:
        """The number of the latest chunk."""
        return self._last

    def has(self, held: Holding) -> bool:
        """Whether this chunk is still to be ended by the worker."""
        return any(given.held is held and not given.revoked for given in self._given)

    def give(self, held: Holding) -> Given:
        self._last += 1
        given = Given(self._last, held)
        self._given.append(given)
        return given

    def answered(self) -> Given | None:
        """The worker has ended its first chunk, or passed over it."""
        return self._given.popleft() if self._given else None

    def revoke(self, begun: int) -> list[Given]:
        """Takes back what is behind the first, and behind what the worker has begun."""
        revoked = []
        for given in list(self._given)[1:]:
            if given.number > begun and not given.revoked:
                given.revoked = True
                revoked.append(given)
        return revoked
