"""The chunks that an agent holds: computed now, or reported and not confirmed yet. No I/O.

A chunk is held from its delivery until the dispatcher has confirmed every part of its result.
Meanwhile the agent claims it every beat; a dispatcher that answers no claim for ``SILENCE``
seconds is gone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from jetmap.wire.constants import Constant
from jetmap.wire.messages import BatchTerms, ChunkHead, ChunkKey, ClaimEntry, Place
from jetmap.wire.timing import BEAT, GONE_KEPT, LOOK, SILENCE


class Lease(msgspec.Struct):
    """A delivery from the broker. (A dataclass takes three times as long to make.)"""

    ack: str  # Subject that acknowledges it.
    left: int  # Chunks of the message that are still held.
    deliveries: int = 1  # Deliveries of this message so far, with this one.

    def release(self) -> bool:
        """Release one chunk of the message. Returns whether it was the last."""
        self.left -= 1
        return self.left <= 0


class Loan(Protocol):
    """Something that a chunk holds until it is confirmed or dropped."""

    def end(self) -> None: ...


class ResultSink(Protocol):
    """A way of results to their dispatcher; each chunk has one, chosen when it arrives."""

    async def add(self, held: HeldChunk, report: bytes) -> None:
        """Take a report. It counts in ``held.unsent`` until it goes to the dispatcher."""


class HeldChunk(msgspec.Struct, eq=False):
    """A chunk that this agent holds."""

    head: ChunkHead
    leases: list[Lease]  # One for each delivery.
    data: bytes
    # Chunks that waited behind it in its lane when it was delivered; -1: in the lane of short maps.
    pending: int
    end: int  # Index of the first item that has not been reported.
    sink: ResultSink
    at: Place | None = None  # Where its items are, if not in ``data``,
    items: list[bytes] = []  # and those, once they have been fetched.
    handed_on: int = 0  # Items at its end that run elsewhere: its budget was spent before them.
    finished: bool = False  # Its last report has been made.
    batch: BatchTerms | None = None  # None: its items share no call with those of other chunks.
    shares: Hashable = None  # Equal for chunks whose items may share a call.
    begun: float = 0.0  # Time at which its worker got it, far from the broker.
    unwanted: bool = False  # Its dispatcher has withdrawn it, or is gone.
    unsent: int = 0  # Reports that are not on their way to the dispatcher yet.
    unconfirmed: set[int] = set()  # Tokens of deliveries with its reports.
    loans: list[Loan] = []  # Shared memory with values of its reports.
    key: ChunkKey = ("", 0)
    constants: Sequence[Constant] = ()  # Constants among its keyword parameters.
    refusal: str = ""  # Why one of these cannot be had here.

    def __post_init__(self) -> None:
        self.key = self.head.map, self.head.number

    @property
    def left(self) -> int:
        """Number of items that are still to be computed here: those not reported or handed on."""
        return self.head.start + self.head.count - self.handed_on - self.end

    def release(self) -> list[str]:
        """Release its deliveries; return the ack subjects of those whose last chunk it was."""
        return [lease.ack for lease in self.leases if lease.release()]

    @property
    def is_done(self) -> bool:
        """Return whether the dispatcher has all reports, so that the chunk may be acknowledged."""
        return self.finished and not self.unsent and not self.unconfirmed


class UnconfirmedDelivery(msgspec.Struct, eq=False):
    """A delivery of reports that is not confirmed."""

    inbox: str
    delivery: bytes
    at: float  # Time of the last send.
    chunks: list[HeldChunk]  # The chunks that it reports on.


class Holdings:
    """All chunks that an agent holds. Times are seconds of one clock, passed in by the caller."""

    def __init__(self) -> None:
        self._held: dict[ChunkKey, HeldChunk] = {}
        self._sent: dict[int, UnconfirmedDelivery] = {}
        self._heard: dict[str, float] = {}  # inbox -> when its dispatcher last answered
        self._token = 0
        self._looked: float | None = None
        self._gone: dict[str, float] = {}  # inbox -> when its dispatcher was given up

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[HeldChunk]:
        return iter(list(self._held.values()))

    def get(self, map: str, number: int) -> HeldChunk | None:
        return self._held.get((map, number))

    def of_map(self, map: str) -> list[HeldChunk]:
        return [h for h in self._held.values() if h.head.map == map]

    def add(self, held: HeldChunk, now: float) -> bool:
        """Add a delivered chunk; return whether it is new.

        If it is held already, because its lease ran out meanwhile, the delivery is added to it.
        """
        known = self._held.setdefault(held.key, held)
        if known is not held:
            known.leases += held.leases
            return False
        self._heard.setdefault(held.head.inbox, now)
        return True

    def on_sent(self, chunks: Iterable[HeldChunk], inbox: str, delivery: bytes, now: float) -> None:
        """Note that a delivery went out with reports of these chunks, under the latest token."""
        token, chunks = self._token, list(chunks)
        self._sent[token] = UnconfirmedDelivery(inbox, delivery, now, chunks)
        for held in chunks:
            held.unsent -= 1
            held.unconfirmed.add(token)

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def confirm(self, tokens: Iterable[int]) -> list[HeldChunk]:
        """Note that the dispatcher has these deliveries.

        Returns the chunks that may be acknowledged now; they are no longer held.
        """
        done = []
        for token in tokens:
            sent = self._sent.pop(token, None)
            for held in sent.chunks if sent else ():
                held.unconfirmed.discard(token)
                if held.is_done and self._held.get(held.key) is held:
                    self.drop(held)
                    done.append(held)
        return done

    def drop(self, held: HeldChunk) -> None:
        """Drop a chunk, with its unconfirmed reports."""
        # After it was dropped, the same chunk may have come again.
        if self._held.get(held.key) is held:
            del self._held[held.key]
        if held.unconfirmed:
            for token in held.unconfirmed:
                sent = self._sent[token]
                sent.chunks = [other for other in sent.chunks if other is not held]
                if not sent.chunks:
                    del self._sent[token]
            held.unconfirmed.clear()
        if held.loans:
            for loan in held.loans:
                loan.end()
            held.loans.clear()
        if not any(h.head.inbox == held.head.inbox for h in self._held.values()):
            self._heard.pop(held.head.inbox, None)

    def on_answer(self, inbox: str, now: float) -> None:
        """Note that the dispatcher of this inbox has answered."""
        self._gone.pop(inbox, None)
        if inbox in self._heard:
            self._heard[inbox] = now

    def take_abandoned(self, now: float) -> list[HeldChunk]:
        """Return the chunks whose dispatcher has not answered for too long; called once a second.

        A process that was frozen could not hear answers: its gap counts against no dispatcher.
        """
        if self._looked is not None and now - self._looked > LOOK + BEAT:
            gap = now - self._looked - LOOK
            self._heard = {inbox: at + gap for inbox, at in self._heard.items()}
        self._looked = now
        if not self._heard and not self._gone:
            return []
        silent = {inbox for inbox, at in self._heard.items() if now - at > SILENCE}
        self._gone = {inbox: at for inbox, at in self._gone.items() if now - at < GONE_KEPT}
        self._gone.update(dict.fromkeys(silent, now))
        return [h for h in self._held.values() if h.head.inbox in silent]

    def is_gone(self, inbox: str) -> bool:
        """Return whether this dispatcher was given up a moment ago: its chunks are not begun.

        A dispatcher that was only out of reach publishes them again.
        """
        return inbox in self._gone

    def leases(self) -> list[str]:
        """Return the ack subject of the latest delivery of each chunk."""
        return list({held.leases[-1].ack for held in self._held.values()})

    def claims(self, items: dict[ChunkKey, int | None]) -> dict[str, list[ClaimEntry]]:
        """Return the chunks held, by their dispatcher's inbox. items: in progress, by chunk."""
        claims: dict[str, list[ClaimEntry]] = {}
        for key, held in self._held.items():
            head = held.head
            deliveries = held.leases[-1].deliveries
            entry = ClaimEntry(head.map, head.number, head.attempt, items.get(key), deliveries)
            claims.setdefault(head.inbox, []).append(entry)
        return claims

    def take_overdue(self, now: float) -> list[UnconfirmedDelivery]:
        """Return the deliveries to send again: sent a beat ago, and not confirmed."""
        again = [sent for sent in self._sent.values() if now - sent.at >= BEAT]
        for sent in again:
            sent.at = now
        return again
