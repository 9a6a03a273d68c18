"""Choose the map that may send its next chunk. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

M = TypeVar("M", bound=Hashable)


class DeficitRoundRobin(Generic[M]):
    """Share seconds of compute between maps by weight.

    Deficit round-robin (Shreedhar and Varghese, 1995), charged after the fact: a map is served
    while its account is positive, and each round adds ``quantum`` seconds times its weight. So a
    chunk's cost need not be known before it is cut.
    """

    def __init__(self, quantum: float) -> None:
        self._quantum = quantum
        self._round: deque[M] = deque()
        self._weights: dict[M, float] = {}
        self._accounts: dict[M, float] = {}

    def __len__(self) -> int:
        return len(self._round)

    def __iter__(self) -> Iterator[M]:
        return iter(self._round)

    def __contains__(self, member: M) -> bool:
        return member in self._weights

    def add(self, member: M, weight: float = 1.0) -> None:
        """Add a newcomer, which is served next: it has waited longest."""
        self._round.appendleft(member)
        self._weights[member] = weight
        self._accounts[member] = self._quantum * weight

    def remove(self, member: M) -> None:
        if member in self._weights:
            self._round.remove(member)
            del self._weights[member], self._accounts[member]

    def next(self, can_send: Callable[[M], bool]) -> M | None:
        """Return the member whose turn it is, among those that can send; None if none can."""
        while True:
            debts = []  # Rounds until each member that can send has paid its debt.
            for _ in range(len(self._round)):
                member = self._round[0]
                account = self._accounts[member]
                if not can_send(member):
                    # A member with nothing to send saves nothing up.
                    self._accounts[member] = min(account, 0.0)
                elif account > 0:
                    return member
                else:
                    share = self._quantum * self._weights[member]
                    self._accounts[member] = account + share
                    debts.append(-self._accounts[member] / share)
                self._round.rotate(-1)
            if not debts:
                return None
            # Skip the rounds in which all members would only pay off debts.
            if (rounds := int(min(debts))) > 0:
                for member in filter(can_send, self._round):
                    self._accounts[member] += rounds * self._quantum * self._weights[member]

    def charge(self, member: M, seconds: float) -> None:
        """Take the cost of a chunk, or the difference to its real cost, off the account."""
        if member in self._accounts:
            self._accounts[member] -= seconds

    def refund(self, member: M, seconds: float) -> None:
        """Give back what a member was charged while it was alone: it saves nothing up.

        Nobody waited while it paid its debts.
        """
        if member in self._accounts:
            self._accounts[member] = min(self._accounts[member] + seconds, 0.0)
