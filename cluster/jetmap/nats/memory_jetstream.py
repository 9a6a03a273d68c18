"""JetStream for the in-memory broker: what its streams take, deliver, repeat and forget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from .clock import Clock
from .memory_api import API, MemoryApi
from .memory_stream import ApiError, MemoryEntry, MemoryStream, matches

# Seconds by which sums of times may differ.
ROUNDING = 1e-6


@dataclass(slots=True)
class MemoryMessage:
    """A message on its way. to: the inbox that it goes to, where that is not its subject."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None = None
    to: str = ""

    @property
    def size(self) -> int:
        return len(self.subject) + len(self.reply) + len(self.data)


class MemoryJetStream:
    """Streams and consumers behind ``$JS.API``, ``$JS.ACK`` and the streams' own subjects.

    ``route`` brings an answer or a delivery to its subject.
    """

    def __init__(self, clock: Clock, route: Callable[[MemoryMessage], None]) -> None:
        self.streams: dict[str, MemoryStream] = {}
        self.clock = clock
        self._api = MemoryApi(self)
        self._route = route

    def handle(self, message: MemoryMessage) -> bool:
        """Act on a message; return whether it was for JetStream."""
        self.tick()
        subject = message.subject
        if subject.startswith("$JS.ACK."):
            self._acknowledge(subject, message.data)
            if message.reply:
                self.send(message.reply, b"")
            return True
        if subject.startswith(API):
            return self._api.handle(subject.removeprefix(API), message)
        taking = [stream for stream in self.streams.values() if stream.takes(subject)]
        for stream in taking:
            self._publish(stream, message)
        return bool(taking)

    def restart(self, *, keep_files: bool) -> None:
        """Forget pulls, and streams that a restarted server would have lost."""
        for name, stream in list(self.streams.items()):
            if stream.config.get("storage") == "memory" or not keep_files:
                del self.streams[name]
            for consumer in stream.consumers.values():
                consumer.waiting.clear()

    def forget_pulls(self, patterns: Iterable[str]) -> None:
        """Drop the pulls whose answers a lost connection awaited on these subjects."""
        patterns = list(patterns)
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                kept = [
                    pull
                    for pull in consumer.waiting
                    if not any(matches(pattern, pull.reply) for pattern in patterns)
                ]
                consumer.waiting.clear()
                consumer.waiting.extend(kept)

    # Publishing and delivering

    def _publish(self, stream: MemoryStream, message: MemoryMessage) -> None:
        before = stream.last_of(message.subject)
        try:
            stored = stream.store(
                message.subject, message.data, message.headers or {}, self.clock.now()
            )
        except ApiError as error:
            answer: dict[str, Any] = {"error": error.body, "stream": stream.name, "seq": 0}
        else:
            answer = {"stream": stream.name, "seq": stored.seq}
            if stored.expires is not None:
                self.clock.call_at(stored.expires, self.tick)
        if message.reply:
            self.send(message.reply, msgspec.json.encode(answer))
        if "error" not in answer:
            self._republish(stream, stored, before.seq if before else 0)
            self.deliver(stream)

    def _republish(self, stream: MemoryStream, stored: MemoryEntry, before: int) -> None:
        republish = stream.config.get("republish")
        if not republish or not matches(republish.get("src") or ">", stored.subject):
            return
        headers = stored.headers | {
            "Nats-Stream": stream.name,
            "Nats-Subject": stored.subject,
            "Nats-Sequence": str(stored.seq),
            "Nats-Last-Sequence": str(before),
        }
        data = stored.data
        if republish.get("headers_only"):
            headers["Nats-Msg-Size"], data = str(len(data)), b""
        self.send(_mapped(republish, stored.subject), data, headers=headers)

    def deliver(self, stream: MemoryStream) -> None:
        """Send what the stream's consumers may have to their pulls."""
        for consumer in list(stream.consumers.values()):
            for delivery in consumer.deliver(self.clock.now()):
                message = delivery.message
                ack = (
                    f"$JS.ACK.{stream.name}.{consumer.name}.{delivery.deliveries}."
                    f"{message.seq}.{delivery.consumer_seq}.{int(message.time * 1e9)}."
                    f"{delivery.pending}"
                )
                self.send(
                    message.subject,
                    message.data,
                    reply=ack,
                    headers=message.headers or None,
                    to=delivery.reply,
                )
                self.clock.call_at(self.clock.now() + consumer.ack_wait, self.tick)

    def _acknowledge(self, subject: str, word: bytes) -> None:
        _, _, stream_name, consumer_name, _, seq, *_ = subject.split(".")
        stream = self.streams.get(stream_name)
        consumer = stream.consumers.get(consumer_name) if stream else None
        if stream is None or consumer is None:
            return
        delay = 0.0
        if word.startswith(b"-NAK "):
            delay = msgspec.json.decode(word[5:]).get("delay", 0) / 1e9
            self.clock.call_at(self.clock.now() + delay, self.tick)
        consumer.acknowledge(int(seq), word, delay, self.clock.now())
        self.deliver(stream)

    def tick(self) -> None:
        """Apply everything that is due by now."""
        now = self.clock.now()
        for stream in list(self.streams.values()):
            for marker in stream.expire(now):
                self._republish(stream, marker, 0)
            for name, consumer in list(stream.consumers.items()):
                consumer.overdue(now)
                for pull in consumer.expire_pulls(now):
                    self.status(pull.reply, "408", "Request Timeout")
                for pull in consumer.waiting:
                    if pull.heartbeat and pull.heard + pull.heartbeat <= now + ROUNDING:
                        pull.heard = now
                        self.status(pull.reply, "100", "Idle Heartbeat")
                        self.clock.call_at(now + pull.heartbeat, self.tick)
                if consumer.is_abandoned(now):
                    del stream.consumers[name]
            self.deliver(stream)

    # Answers

    def status(self, reply: str, status: str, description: str) -> None:
        """Answer with a status alone."""
        self.send(reply, b"", headers={"Status": status, "Description": description})

    def send(
        self,
        subject: str,
        data: bytes,
        *,
        reply: str = "",
        headers: dict[str, str] | None = None,
        to: str = "",
    ) -> None:
        """Route a message; ``to`` names the inbox of one that keeps its original subject."""
        self._route(MemoryMessage(subject, reply, data, headers, to))


def _mapped(republish: dict[str, Any], subject: str) -> str:
    """Return the subject under which a republish rule repeats a message."""
    source, target = republish["src"].split("."), republish["dest"]
    if target.endswith(">"):
        kept = subject.split(".")[len(source) - 1 :]
        return str(target.removesuffix(">")) + ".".join(kept)
    return str(target)
