"""Which map may send its next chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

M = TypeVar("M", bound=Hashable)


class DeficitRoundRobin(Generic[M]):
    """Shares seconds of compute between maps by weight.

    Deficit round-robin (Shreedhar and Varghese, 1995), charged after the fact: a map is
    served while its account is positive, and each round puts ``quantum`` seconds times its
    weight on it. So nobody needs to know what a chunk costs before it is cut.
    """

    def __init__(self, quantum: float) -> None:
        self._quantum = quantum
        self._round: deque[M] = deque()
        self._weights: dict[M, float] = {}
        self._accounts: dict[M, float] = {}

    def __len__(self) -> int:
        return len(self._round)

    def add(self, member: M, weight: float = 1.0) -> None:
        """A newcomer is served next: it has waited longer than whoever was served."""
        self._round.appendleft(member)
        self._weights[member] = weight
        self._accounts[member] = self._quantum * weight

    def remove(self, member: M) -> None:
        if member in self._weights:
            self._round.remove(member)
            del self._weights[member], self._accounts[member]

    def next(self, can_send: Callable[[M], bool]) -> M | None:
        """The member whose turn it is, among those that can send; None if none can."""
        for _ in range(len(self._round)):
            member = self._round[0]
            if can_send(member):
                break
            # Who has nothing to send saves nothing up.
            self._accounts[member] = min(self._accounts[member], 0.0)
            self._round.rotate(-1)
        else:
            return None
        while True:
            member = self._round[0]
            if self._accounts[member] > 0 and can_send(member):
                return member
            if can_send(member):
                self._accounts[member] += self._quantum * self._weights[member]
            self._round.rotate(-1)

    def charge(self, member: M, seconds: float) -> None:
        """Takes what was sent, or the difference to what it really took, off the account."""
        if member in self._accounts:
            self._accounts[member] -= seconds
