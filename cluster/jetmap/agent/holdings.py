"""What an agent holds: chunks it computes, and results that nobody has confirmed yet. No I/O.

A chunk is held from its delivery until the dispatcher has confirmed every part of its
result. While it is held the agent claims it every beat, and a dispatcher that answers no
claim for ``SILENCE`` seconds is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jetmap.wire.messages import ChunkHead, Held
from jetmap.wire.timing import BEAT, GONE_KEPT, LOOK, SILENCE

Key = tuple[str, int]


@dataclass
class Lease:
    """A delivery from the broker. ack: the subject on which it hears of it. left: chunks of
    the message that are still held. deliveries: so far, with this one."""

    ack: str
    left: int
    deliveries: int = 1

    def is_over(self) -> bool:
        """One of its chunks is let go; whether it was the last."""
        self.left -= 1
        return self.left <= 0


@dataclass
class Holding:
    """leases: one a delivery. end: items before it have been reported. started: whether a
    worker was ever given it. storing: reports that the job store has not taken yet.
    unconfirmed: tokens of what was sent of it."""

    head: ChunkHead
    leases: list[Lease]
    data: bytes
    pending: int
    end: int
    started: bool = False
    finished: bool = False
    unwanted: bool = False
    storing: int = 0
    unconfirmed: set[int] = field(default_factory=set)

    @property
    def key(self) -> Key:
        return self.head.map, self.head.number

    @property
    def is_done(self) -> bool:
        """Whether the dispatcher has everything, so that the chunk may be acknowledged."""
        return self.finished and not self.storing and not self.unconfirmed


@dataclass
class Sent:
    """A delivery that is not confirmed. at: when it was last sent. chunks: that it tells of."""

    inbox: str
    delivery: bytes
    at: float
    chunks: list[Holding]


class Holdings:
    """All times are seconds of one monotonic clock, given by the caller."""

    def __init__(self) -> None:
        self._held: dict[Key, Holding] = {}
        self._sent: dict[int, Sent] = {}
        self._heard: dict[str, float] = {}  # inbox -> when its dispatcher last answered
        self._token = 0
        self._looked: float | None = None
        self._gone: dict[str, float] = {}  # inbox -> when its dispatcher was given up

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Holding]:
        return iter(list(self._held.values()))

    def get(self, map: str, number: int) -> Holding | None:
        return self._held.get((map, number))

    def of_map(self, map: str) -> list[Holding]:
        return [h for h in self._held.values() if h.head.map == map]

    def take(self, head: ChunkHead, lease: Lease, data: bytes, pending: int, now: float) -> Holding:
        """A delivered chunk. Delivered again while it is held, it is the same holding."""
        held = self._held.get((head.map, head.number))
        if held is not None:
            held.leases.append(lease)
            return held
        held = Holding(head, [lease], data, pending, head.start)
        self._held[held.key] = held
        self._heard.setdefault(head.inbox, now)
        return held

    def sent(self, chunks: Iterable[Holding], inbox: str, delivery: bytes, now: float) -> None:
        """The delivery with the token that ``next_token`` gave went out, with reports of these."""
        self._sent[self._token] = Sent(inbox, delivery, now, list(chunks))
        for held in self._sent[self._token].chunks:
            held.unconfirmed.add(self._token)

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def confirmed(self, tokens: Iterable[int]) -> list[Holding]:
        """The dispatcher has these. Returns what may be acknowledged now; it is let go."""
        done = []
        for token in tokens:
            sent = self._sent.pop(token, None)
            for held in sent.chunks if sent else ():
                held.unconfirmed.discard(token)
                if held.is_done and self._held.get(held.key) is held:
                    self.drop(held)
                    done.append(held)
        return done

    def drop(self, held: Holding) -> None:
        """Lets a chunk go, with what of it is unconfirmed."""
        # (After it was let go, the same chunk may have come again.)
        if self._held.get(held.key) is held:
            del self._held[held.key]
        for token in held.unconfirmed:
            sent = self._sent[token]
            sent.chunks = [other for other in sent.chunks if other is not held]
            if not sent.chunks:
                del self._sent[token]
        held.unconfirmed.clear()
        if not any(h.head.inbox == held.head.inbox for h in self._held.values()):
            self._heard.pop(held.head.inbox, None)

    def heard(self, inbox: str, now: float) -> None:
        """The dispatcher of this inbox answered."""
        self._gone.pop(inbox, None)
        if inbox in self._heard:
            self._heard[inbox] = now

    def gone(self, now: float) -> list[Holding]:
        """Once a second: the chunks whose dispatcher has not answered for too long.

        A process that was frozen could not hear answers: its gap counts for nobody.
        """
        if self._looked is not None and now - self._looked > LOOK + BEAT:
            gap = now - self._looked - LOOK
            self._heard = {inbox: at + gap for inbox, at in self._heard.items()}
        self._looked = now
        silent = {inbox for inbox, at in self._heard.items() if now - at > SILENCE}
        self._gone = {inbox: at for inbox, at in self._gone.items() if now - at < GONE_KEPT}
        self._gone.update(dict.fromkeys(silent, now))
        return [h for h in self._held.values() if h.head.inbox in silent]

    def is_gone(self, inbox: str) -> bool:
        """Whether this dispatcher was given up a moment ago, so that what of it is still in
        the queue is not begun. (One that was only out of reach publishes it again.)"""
        return inbox in self._gone

    def leases(self) -> list[str]:
        """The ack subjects of all that is held, the latest of each chunk."""
        return list({held.leases[-1].ack for held in self._held.values()})

    def claims(self, items: dict[Key, int | None]) -> dict[str, list[Held]]:
        """By dispatcher's inbox, what is held of it. items: in progress, by chunk."""
        claims: dict[str, list[Held]] = {}
        for key, held in self._held.items():
            head = held.head
            deliveries = held.leases[-1].deliveries
            entry = Held(head.map, head.number, head.attempt, items.get(key), deliveries)
            claims.setdefault(head.inbox, []).append(entry)
        return claims

    def overdue(self, now: float) -> list[Sent]:
        """Deliveries to send again: sent a beat ago and not confirmed."""
        again = [sent for sent in self._sent.values() if now - sent.at >= BEAT]
        for sent in again:
            sent.at = now
        return again
