"""JetStream's API for the in-memory broker: requests under ``$JS.API``, and their answers."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from .memory_stream import (
    NOT_UNIQUE,
    ApiError,
    MemoryConsumer,
    MemoryEntry,
    MemoryPull,
    MemoryStream,
)

if TYPE_CHECKING:
    from .memory_jetstream import MemoryJetStream, MemoryMessage

API = "$JS.API."
# Rows of one page of an answer.
PAGE = 100_000
CONSUMER_DEFAULTS = {"ack_wait": 30 * 10**9, "max_ack_pending": 1000, "max_waiting": 512}
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryApi:
    """The API by which clients make, change and read streams and consumers."""

    def __init__(self, jetstream: MemoryJetStream) -> None:
        self._jetstream = jetstream
        self._streams = jetstream.streams
        self._created = 0.0

    def handle(self, call: str, message: MemoryMessage) -> bool:
        """Answer a call of the API; return whether there is such a call."""
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
            self._jetstream.send(message.reply, msgspec.json.encode(answer))
        return True

    def _answer_of(self, call: str, request: dict[str, Any]) -> dict[str, Any] | None:
        match call.split("."):
            case ["INFO"]:
                return {"memory": 0, "storage": 0, "streams": len(self._streams), "limits": {}}
            case ["STREAM", "NAMES"]:
                return self._page(sorted(self._streams), "streams", request)
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
        there = self._stream(name) if update else self._streams.get(name)
        if there is not None and not update and there.config != config:
            raise ApiError(400, 10058, "stream name already in use with a different configuration")
        if config.get("num_replicas", 1) > 1:
            raise ApiError(500, 10074, "replicas > 1 not supported in non-clustered mode")
        if there is None:
            # Never twice the same, so that a recreated stream differs from the last one.
            self._created = max(self._jetstream.clock.now(), self._created + 1e-6)
            there = self._streams[name] = MemoryStream({}, self._created)
            there.last_seq = max(1, config.get("first_seq", 1)) - 1
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
                del self._streams[stream.name]
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
            "ts": _time(self._jetstream.clock.now()),
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
            there = MemoryConsumer(
                stream, name, CONSUMER_DEFAULTS | config, self._jetstream.clock.now()
            )
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
        stream = self._streams.get(stream_name)
        consumer = stream.consumers.get(name) if stream else None
        if stream is None or consumer is None:
            return False  # Nobody listens there: the asker gets a 503.
        now = self._jetstream.clock.now()
        expires, heartbeat = request.get("expires", 0) / 1e9, request.get("idle_heartbeat", 0) / 1e9
        ends = now + expires if expires else None
        pull = MemoryPull(reply, request.get("batch", 1), ends, heartbeat, now)
        consumer.pull(pull, now)
        self._jetstream.deliver(stream)
        if request.get("no_wait") and pull in consumer.waiting:
            consumer.waiting.remove(pull)
            self._jetstream.status(reply, "404", "No Messages")
            return True
        for at in (ends, now + heartbeat if heartbeat else None):
            if at is not None:
                self._jetstream.clock.call_at(at, self._jetstream.tick)
        return True

    def _direct(self, name: str, request: dict[str, Any], reply: str) -> bool:
        stream_name, _, subject = name.partition(".")
        stream = self._streams.get(stream_name)
        if stream is None or not stream.config.get("allow_direct"):
            return False
        if subject:
            request = {"last_by_subj": subject}
        if "batch" not in request:
            try:
                found = self._find(stream, request)
            except ApiError:
                self._jetstream.status(reply, "404", "Message Not Found")
                return True
            self._jetstream.send(reply, found.data, headers=_direct_headers(stream, found))
            return True
        pattern, last, size = request.get("next_by_subj") or ">", 0, 0
        left = list(stream.select(pattern, request.get("seq", 1)))
        if not left:
            self._jetstream.status(reply, "404", "Message Not Found")
            return True
        for stored in left[: request["batch"]]:
            if last and request.get("max_bytes") and size + stored.size > request["max_bytes"]:
                break
            headers = _direct_headers(stream, stored) | {"Nats-Last-Sequence": str(last)}
            self._jetstream.send(reply, stored.data, headers=headers)
            last, size = stored.seq, size + stored.size
        self._jetstream.status(reply, "204", "EOB")
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
        if (stream := self._streams.get(name)) is None:
            raise ApiError(404, 10059, "stream not found")
        return stream

    def _page(self, rows: list[Any], key: str, request: dict[str, Any]) -> dict[str, Any]:
        offset = request.get("offset", 0)
        return {key: rows[offset : offset + PAGE], "total": len(rows), "offset": offset}

    def _end(self, consumer: MemoryConsumer, why: str) -> None:
        for pull in consumer.waiting:
            self._jetstream.status(pull.reply, "409", why)
        consumer.waiting.clear()


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
