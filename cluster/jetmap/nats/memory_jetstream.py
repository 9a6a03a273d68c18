"""JetStream's API for the in-memory broker: requests in, answers and deliveries out."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from .clock import Clock
from .memory_stream import (
    NOT_UNIQUE,
    ApiError,
    MemoryConsumer,
    MemoryEntry,
    MemoryPull,
    MemoryStream,
    matches,
)

API = "$JS.API."
# Rows of one page of an answer.
PAGE = 100_000
# Seconds by which sums of times may differ.
ROUNDING = 1e-6
CONSUMER_DEFAULTS = {"ack_wait": 30 * 10**9, "max_ack_pending": 1000, "max_waiting": 512}
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


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
        self._created = 0.0
        self._clock = clock
        self._route = route

    def handle(self, message: MemoryMessage) -> bool:
        """Act on a message; return whether it was for JetStream."""
        self._tick()
        subject = message.subject
        if subject.startswith("$JS.ACK."):
            self._acknowledge(subject, message.data)
            if message.reply:
                self._answer(message.reply, b"")
            return True
        if subject.startswith(API):
            return self._api(subject.removeprefix(API), message)
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
                message.subject, message.data, message.headers or {}, self._clock.now()
            )
        except ApiError as error:
            answer: dict[str, Any] = {"error": error.body, "stream": stream.name, "seq": 0}
        else:
            answer = {"stream": stream.name, "seq": stored.seq}
            if stored.expires is not None:
                self._clock.call_at(stored.expires, self._tick)
        if message.reply:
            self._answer(message.reply, msgspec.json.encode(answer))
        if "error" not in answer:
            self._republish(stream, stored, before.seq if before else 0)
            self._deliver(stream)

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
        self._send(_mapped(republish, stored.subject), data, headers=headers)

    def _deliver(self, stream: MemoryStream) -> None:
        for consumer in list(stream.consumers.values()):
            for delivery in consumer.deliver(self._clock.now()):
                message = delivery.message
                ack = (
                    f"$JS.ACK.{stream.name}.{consumer.name}.{delivery.deliveries}."
                    f"{message.seq}.{delivery.consumer_seq}.{int(message.time * 1e9)}."
                    f"{delivery.pending}"
                )
                self._send(
                    message.subject,
                    message.data,
                    reply=ack,
                    headers=message.headers or None,
                    to=delivery.reply,
                )
                self._clock.call_at(self._clock.now() + consumer.ack_wait, self._tick)

    def _acknowledge(self, subject: str, word: bytes) -> None:
        _, _, stream_name, consumer_name, _, seq, *_ = subject.split(".")
        stream = self.streams.get(stream_name)
        consumer = stream.consumers.get(consumer_name) if stream else None
        if stream is None or consumer is None:
            return
        delay = 0.0
        if word.startswith(b"-NAK "):
            delay = msgspec.json.decode(word[5:]).get("delay", 0) / 1e9
            self._clock.call_at(self._clock.now() + delay, self._tick)
        consumer.acknowledge(int(seq), word, delay, self._clock.now())
        self._deliver(stream)

    def _tick(self) -> None:
        """Apply everything that is due by now."""
        now = self._clock.now()
        for stream in list(self.streams.values()):
            for marker in stream.expire(now):
                self._republish(stream, marker, 0)
            for name, consumer in list(stream.consumers.items()):
                consumer.overdue(now)
                for pull in consumer.expire_pulls(now):
                    self._status(pull.reply, "408", "Request Timeout")
                for pull in consumer.waiting:
                    if pull.heartbeat and pull.heard + pull.heartbeat <= now + ROUNDING:
                        pull.heard = now
                        self._status(pull.reply, "100", "Idle Heartbeat")
                        self._clock.call_at(now + pull.heartbeat, self._tick)
                if consumer.is_abandoned(now):
                    del stream.consumers[name]
            self._deliver(stream)

    # The API

    def _api(self, call: str, message: MemoryMessage) -> bool:
        verb, _, name = call.partition(".")
        request: dict[str, Any] = {}
        if message.data:
            try:
                request = msgspec.json.decode(message.data)
            except msgspec.DecodeError:
                request = {}
        try:
            if call.startswith("CONSUMER.MSG.NEXT."):
                stream, consumer = call.split(".")[3:5]
                return self._pull(stream, consumer, request, message.reply)
            if verb == "DIRECT":
                return self._direct(name.removeprefix("GET."), request, message.reply)
            answer = self._answer_of(call, request)
            if answer is None:
                return False
        except ApiError as error:
            answer = {"error": error.body}
        if message.reply:
            self._answer(message.reply, msgspec.json.encode(answer))
        return True

    def _answer_of(self, call: str, request: dict[str, Any]) -> dict[str, Any] | None:
        match call.split("."):
            case ["INFO"]:
                return {"memory": 0, "storage": 0, "streams": len(self.streams), "limits": {}}
            case ["STREAM", "NAMES"]:
                return self._page(sorted(self.streams), "streams", request)
            case ["STREAM", "CREATE" | "UPDATE" as verb, name]:
                return self._make_stream(name, request, update=verb == "UPDATE")
            case ["STREAM", verb, *rest] if rest:
                return self._stream_call(verb, rest, request)
            case ["CONSUMER", "CREATE", stream, name, *_]:
                return self._make_consumer(self._stream(stream), name, request["config"])
            case ["CONSUMER", verb, stream, *names]:
                return self._consumer_call(verb, self._stream(stream), names, request)
        return None

    def _make_stream(self, name: str, config: dict[str, Any], *, update: bool) -> dict[str, Any]:
        there = self._stream(name) if update else self.streams.get(name)
        if there is not None and not update and there.config != config:
            raise ApiError(400, 10058, "stream name already in use with a different configuration")
        if config.get("num_replicas", 1) > 1:
            raise ApiError(500, 10074, "replicas > 1 not supported in non-clustered mode")
        if there is None:
            # Never twice the same, so that a recreated stream differs from the last one.
            self._created = max(self._clock.now(), self._created + 1e-6)
            there = self.streams[name] = MemoryStream({}, self._created)
        there.config = dict(config)
        return self._stream_info(there, {})

    def _stream_call(
        self, verb: str, rest: list[str], request: dict[str, Any]
    ) -> dict[str, Any] | None:
        stream = self._stream(rest[-1])
        match [verb, *rest[:-1]]:
            case ["INFO"]:
                return self._stream_info(stream, request)
            case ["PURGE"]:
                pattern, keep = request.get("filter") or ">", request.get("keep", 0)
                purged = stream.purge(pattern, request.get("seq"), keep)
                return {"success": True, "purged": purged}
            case ["DELETE"]:
                for consumer in stream.consumers.values():
                    self._end(consumer, "Stream Deleted")
                del self.streams[stream.name]
                return {"success": True}
            case ["MSG", "GET"]:
                return {"message": _as_json(self._find(stream, request))}
            case ["MSG", "DELETE"]:
                if not stream.remove([request["seq"]]):
                    raise ApiError(400, 10043, f"no message with sequence {request['seq']}")
                return {"success": True}
        return None

    def _stream_info(self, stream: MemoryStream, request: dict[str, Any]) -> dict[str, Any]:
        state = stream.state()
        info: dict[str, Any] = {
            "config": stream.config,
            "created": _time(stream.created),
            "ts": _time(self._clock.now()),
            "state": state,
        }
        if pattern := request.get("subjects_filter"):
            found = sorted(stream.subjects(pattern).items())
            offset = request.get("offset", 0)
            state["subjects"] = dict(found[offset : offset + PAGE])
            info |= {"total": len(found), "offset": offset, "limit": PAGE}
        return info

    def _make_consumer(
        self, stream: MemoryStream, name: str, config: dict[str, Any]
    ) -> dict[str, Any]:
        there = stream.consumers.get(name)
        if there is None:
            wanted = config.get("filter_subject") or ">"
            if stream.is_work_queue and any(
                _overlap(wanted, other.filter) for other in stream.consumers.values()
            ):
                raise ApiError(400, NOT_UNIQUE, "filtered consumer not unique on workqueue stream")
            there = MemoryConsumer(stream, name, CONSUMER_DEFAULTS | config, self._clock.now())
            stream.consumers[name] = there
        elif there.config != CONSUMER_DEFAULTS | config:
            raise ApiError(400, 10148, "consumer already exists")
        return _consumer_info(there)

    def _consumer_call(
        self, verb: str, stream: MemoryStream, names: list[str], request: dict[str, Any]
    ) -> dict[str, Any] | None:
        if verb == "NAMES":
            return self._page(sorted(stream.consumers), "consumers", request)
        if verb == "LIST":
            infos = [_consumer_info(consumer) for consumer in stream.consumers.values()]
            return self._page(infos, "consumers", request)
        consumer = stream.consumers.get(names[0]) if names else None
        if consumer is None:
            raise ApiError(404, 10014, "consumer not found")
        if verb == "INFO":
            return _consumer_info(consumer)
        if verb == "DELETE":
            self._end(consumer, "Consumer Deleted")
            del stream.consumers[consumer.name]
            return {"success": True}
        return None

    def _pull(self, stream_name: str, name: str, request: dict[str, Any], reply: str) -> bool:
        stream = self.streams.get(stream_name)
        consumer = stream.consumers.get(name) if stream else None
        if stream is None or consumer is None:
            return False  # Nobody listens there: the asker gets a 503.
        now = self._clock.now()
        expires, heartbeat = request.get("expires", 0) / 1e9, request.get("idle_heartbeat", 0) / 1e9
        ends = now + expires if expires else None
        pull = MemoryPull(reply, request.get("batch", 1), ends, heartbeat, now)
        consumer.pull(pull, now)
        self._deliver(stream)
        if request.get("no_wait") and pull in consumer.waiting:
            consumer.waiting.remove(pull)
            self._status(reply, "404", "No Messages")
            return True
        for at in (ends, now + heartbeat if heartbeat else None):
            if at is not None:
                self._clock.call_at(at, self._tick)
        return True

    def _direct(self, name: str, request: dict[str, Any], reply: str) -> bool:
        stream_name, _, subject = name.partition(".")
        stream = self.streams.get(stream_name)
        if stream is None or not stream.config.get("allow_direct"):
            return False
        if subject:
            request = {"last_by_subj": subject}
        if "batch" not in request:
            try:
                found = self._find(stream, request)
            except ApiError:
                self._status(reply, "404", "Message Not Found")
                return True
            self._send(reply, found.data, headers=_direct_headers(stream, found))
            return True
        pattern, last, size = request.get("next_by_subj") or ">", 0, 0
        left = list(stream.select(pattern, request.get("seq", 1)))
        if not left:
            self._status(reply, "404", "Message Not Found")
            return True
        for stored in left[: request["batch"]]:
            if last and request.get("max_bytes") and size + stored.size > request["max_bytes"]:
                break
            headers = _direct_headers(stream, stored) | {"Nats-Last-Sequence": str(last)}
            self._send(reply, stored.data, headers=headers)
            last, size = stored.seq, size + stored.size
        self._status(reply, "204", "EOB")
        return True

    def _find(self, stream: MemoryStream, request: dict[str, Any]) -> MemoryEntry:
        found: MemoryEntry | None
        if subject := request.get("last_by_subj"):
            found = max(stream.select(subject), key=lambda m: m.seq, default=None)
        elif subject := request.get("next_by_subj"):
            found = next(stream.select(subject, request.get("seq", 1)), None)
        else:
            found = stream.messages.get(request.get("seq", 0))
        if found is None:
            raise ApiError(404, 10037, "no message found")
        return found

    def _stream(self, name: str) -> MemoryStream:
        if (stream := self.streams.get(name)) is None:
            raise ApiError(404, 10059, "stream not found")
        return stream

    def _page(self, rows: list[Any], key: str, request: dict[str, Any]) -> dict[str, Any]:
        offset = request.get("offset", 0)
        return {key: rows[offset : offset + PAGE], "total": len(rows), "offset": offset}

    def _end(self, consumer: MemoryConsumer, why: str) -> None:
        for pull in consumer.waiting:
            self._status(pull.reply, "409", why)
        consumer.waiting.clear()

    # Answers

    def _status(self, reply: str, status: str, description: str) -> None:
        self._send(reply, b"", headers={"Status": status, "Description": description})

    def _answer(self, reply: str, data: bytes) -> None:
        self._send(reply, data)

    def _send(
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


def _direct_headers(stream: MemoryStream, stored: MemoryEntry) -> dict[str, str]:
    return stored.headers | {
        "Nats-Stream": stream.name,
        "Nats-Subject": stored.subject,
        "Nats-Sequence": str(stored.seq),
        "Nats-Time-Stamp": _time(stored.time),
    }


def _consumer_info(consumer: MemoryConsumer) -> dict[str, Any]:
    return {
        "stream_name": consumer.stream.name,
        "name": consumer.name,
        "config": consumer.config,
        "num_pending": consumer.pending,
        "num_ack_pending": len(consumer.unacked),
        "num_waiting": len(consumer.waiting),
    }


def _as_json(stored: MemoryEntry) -> dict[str, Any]:
    message = {
        "subject": stored.subject,
        "seq": stored.seq,
        "time": _time(stored.time),
        "data": base64.b64encode(stored.data).decode(),
    }
    if stored.headers:
        lines = "".join(f"{key}: {value}\r\n" for key, value in stored.headers.items())
        message["hdrs"] = base64.b64encode(f"NATS/1.0\r\n{lines}\r\n".encode()).decode()
    return message


def _overlap(one: str, other: str) -> bool:
    """Return whether some subject fits both patterns."""
    a, b = one.split("."), other.split(".")
    for x, y in zip(a, b, strict=False):
        if ">" in (x, y):
            return True
        if x != y and "*" not in (x, y):
            return False
    return len(a) == len(b)


def _time(seconds: float) -> str:
    """Format the clock's time as RFC 3339."""
    return (EPOCH + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
