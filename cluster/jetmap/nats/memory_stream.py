"""Streams and consumers of the in-memory broker, as plain state. No I/O, no clock.

They follow nats-server where jetmap relies on it: a work queue keeps a message until it is
acknowledged, ``discard: new`` refuses with the server's own error numbers, and a redelivered
message goes out before new ones. `tests/unit/nats/test_contract.py` holds both to the same suite.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

WRONG_STREAM = 10060
WRONG_LAST_SEQUENCE = 10071
STREAM_FULL = 10077
NOT_UNIQUE = 10100


class ApiError(Exception):
    """A refusal as JetStream words it: HTTP's code, NATS's own number, a description."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(description)
        self.body = {"code": code, "err_code": err_code, "description": description}


def matches(pattern: str, subject: str) -> bool:
    """Return whether a subject fits a pattern with the wildcards ``*`` and ``>``."""
    if pattern == subject or pattern == ">":
        return True
    wanted, tokens = pattern.split("."), subject.split(".")
    for i, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > i
        if i >= len(tokens) or (token not in ("*", tokens[i])):
            return False
    return len(wanted) == len(tokens)


@dataclass(slots=True)
class MemoryEntry:
    """A message of a stream. expires: the clock's time at which its TTL is over."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    time: float
    expires: float | None = None

    @property
    def size(self) -> int:
        return len(self.subject) + len(self.data) + sum(map(len, self.headers.values())) + 16


@dataclass(slots=True)
class MemoryStream:
    """A stream's configuration (JetStream's own keys) and messages."""

    config: dict[str, Any]
    created: float
    messages: dict[int, MemoryEntry] = field(default_factory=dict)
    consumers: dict[str, MemoryConsumer] = field(default_factory=dict)
    last_seq: int = 0
    size: int = 0
    _subjects: dict[str, list[int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def is_work_queue(self) -> bool:
        return bool(self.config.get("retention") == "workqueue")

    def takes(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self.config.get("subjects", []))

    def select(self, pattern: str, first: int = 1) -> Iterator[MemoryEntry]:
        """Yield the messages whose subjects fit, in order, from a sequence number on."""
        for message in list(self.messages.values()):
            if message.seq >= first and matches(pattern, message.subject):
                yield message

    def subjects(self, pattern: str) -> dict[str, int]:
        """Count the messages of each subject that fits."""
        return {s: len(seqs) for s, seqs in self._subjects.items() if matches(pattern, s)}

    def last_of(self, subject: str) -> MemoryEntry | None:
        """Return the last message on exactly this subject."""
        seqs = self._subjects.get(subject)
        return self.messages[seqs[-1]] if seqs else None

    def store(self, subject: str, data: bytes, headers: dict[str, str], now: float) -> MemoryEntry:
        """Append a message. Raises ApiError if its expectations or the limits forbid it."""
        self._check_expectations(subject, headers)
        message = MemoryEntry(self.last_seq + 1, subject, data, dict(headers), now)
        if (ttl := headers.get("Nats-TTL")) is not None:
            message.expires = now + float(ttl.removesuffix("s"))
        if headers.get("Nats-Rollup") == "sub":
            self.remove(list(self._subjects.get(subject, ())))
        self._make_room(message)
        self.last_seq = message.seq
        self.messages[message.seq] = message
        self._subjects.setdefault(subject, []).append(message.seq)
        self.size += message.size
        return message

    def remove(self, seqs: Iterable[int]) -> int:
        """Delete messages; return how many existed."""
        count = 0
        for seq in seqs:
            message = self.messages.pop(seq, None)
            if message is None:
                continue
            count += 1
            self.size -= message.size
            of_subject = self._subjects[message.subject]
            of_subject.remove(seq)
            if not of_subject:
                del self._subjects[message.subject]
            for consumer in self.consumers.values():
                consumer.forget(seq)
        return count

    def purge(self, pattern: str, before: int | None, keep: int) -> int:
        """Delete the messages that fit, up to a sequence number, except the last ``keep``."""
        found = [m.seq for m in self.select(pattern) if before is None or m.seq < before]
        return self.remove(found[: len(found) - keep] if keep else found)

    def expire(self, now: float) -> list[MemoryEntry]:
        """Delete messages past their TTL; return the delete markers that replace them."""
        over = [m for m in self.messages.values() if m.expires is not None and m.expires <= now]
        markers = []
        for message in over:
            was_last = self.last_of(message.subject) is message
            self.remove([message.seq])
            keep = self.config.get("subject_delete_marker_ttl")
            if keep and was_last and "Nats-Marker-Reason" not in message.headers:
                headers = {"Nats-Marker-Reason": "MaxAge", "Nats-TTL": f"{keep / 1e9:g}s"}
                markers.append(self.store(message.subject, b"", headers, now))
        return markers

    def state(self) -> dict[str, Any]:
        seqs = list(self.messages)
        return {
            "messages": len(seqs),
            "bytes": self.size,
            "first_seq": min(seqs, default=self.last_seq + 1),
            "last_seq": self.last_seq,
            "num_subjects": len(self._subjects),
            "consumer_count": len(self.consumers),
        }

    def _check_expectations(self, subject: str, headers: dict[str, str]) -> None:
        if headers.get("Nats-Expected-Stream", self.name) != self.name:
            raise ApiError(400, WRONG_STREAM, "expected stream does not match")
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        if expected is not None:
            last = self.last_of(subject)
            there = last.seq if last else 0
            if int(expected) != there:
                raise ApiError(400, WRONG_LAST_SEQUENCE, f"wrong last sequence: {there}")

    def _make_room(self, message: MemoryEntry) -> None:
        config = self.config
        of_subject = self._subjects.get(message.subject, [])
        new = config.get("discard") == "new"
        each = config.get("max_msgs_per_subject", -1)
        if each > 0 and len(of_subject) >= each:
            if new and config.get("discard_new_per_subject"):
                raise ApiError(503, STREAM_FULL, "maximum messages per subject exceeded")
            self.remove(of_subject[: len(of_subject) - each + 1])
        for limit, used, what in (
            (config.get("max_msgs", -1), len(self.messages) + 1, "messages"),
            (config.get("max_bytes", -1), self.size + message.size, "bytes"),
        ):
            if limit > 0 and used > limit:
                if new:
                    raise ApiError(503, STREAM_FULL, f"maximum {what} exceeded")
                self.remove([min(self.messages)])


@dataclass(slots=True)
class MemoryPull:
    """A request for messages that waits. left: how many more it takes."""

    reply: str
    left: int
    expires: float | None
    heartbeat: float
    heard: float


@dataclass(slots=True)
class MemoryDelivery:
    """A message that goes out. pending: messages of the consumer that wait behind it."""

    message: MemoryEntry
    reply: str
    deliveries: int
    consumer_seq: int
    pending: int


@dataclass(slots=True)
class MemoryConsumer:
    """A durable pull consumer with explicit acknowledgements."""

    stream: MemoryStream
    name: str
    config: dict[str, Any]
    used: float
    waiting: deque[MemoryPull] = field(default_factory=deque)
    unacked: dict[int, float] = field(default_factory=dict)
    deliveries: dict[int, int] = field(default_factory=dict)
    _again: dict[int, float] = field(default_factory=dict)
    _next: int = 1
    _count: int = 0

    @property
    def filter(self) -> str:
        return str(self.config.get("filter_subject") or ">")

    @property
    def ack_wait(self) -> float:
        return float(self.config.get("ack_wait", 30e9)) / 1e9

    @property
    def pending(self) -> int:
        return sum(1 for _ in self.stream.select(self.filter, self._next))

    def pull(self, pull: MemoryPull, now: float) -> None:
        self.used = now
        self.waiting.append(pull)

    def deliver(self, now: float) -> Iterator[MemoryDelivery]:
        """Hand messages to the pulls that wait, oldest first."""
        while self.waiting and (message := self._take(now)) is not None:
            pull = self.waiting[0]
            pull.left -= 1
            pull.heard = now
            if not pull.left:
                self.waiting.popleft()
            self._count += 1
            tries = self.deliveries[message.seq] = self.deliveries.get(message.seq, 0) + 1
            self.unacked[message.seq] = now + self.ack_wait
            yield MemoryDelivery(message, pull.reply, tries, self._count, self.pending)

    def acknowledge(self, seq: int, word: bytes, delay: float, now: float) -> None:
        """Act on ``+ACK``, ``-NAK``, ``+WPI`` or ``+TERM``; a stale one counts as current."""
        self.used = now
        if word.startswith(b"-NAK"):
            if self.unacked.pop(seq, None) is not None:
                self._again[seq] = now + delay
        elif word.startswith(b"+WPI"):
            if seq in self.unacked:
                self.unacked[seq] = now + self.ack_wait
        else:
            self.forget(seq)
            if self.stream.is_work_queue:
                self.stream.remove([seq])

    def overdue(self, now: float) -> None:
        """Queue messages that were not acknowledged in time, for another delivery."""
        for seq, until in list(self.unacked.items()):
            if until <= now:
                del self.unacked[seq]
                self._again[seq] = now

    def expire_pulls(self, now: float) -> list[MemoryPull]:
        """Remove and return the pulls whose time is over."""
        self.waiting, over = (
            deque(p for p in self.waiting if p.expires is None or p.expires > now),
            [p for p in self.waiting if p.expires is not None and p.expires <= now],
        )
        if over:
            self.used = now
        return over

    def is_abandoned(self, now: float) -> bool:
        threshold = self.config.get("inactive_threshold", 0) / 1e9
        return bool(threshold and not self.waiting and now - self.used >= threshold)

    def forget(self, seq: int) -> None:
        """Drop the notes on a message that is gone."""
        self.unacked.pop(seq, None)
        self._again.pop(seq, None)
        self.deliveries.pop(seq, None)

    def _take(self, now: float) -> MemoryEntry | None:
        for seq, at in self._again.items():
            if at <= now:
                del self._again[seq]
                return self.stream.messages[seq]
        for message in self.stream.select(self.filter, self._next):
            self._next = message.seq + 1
            return message
        return None
