"""JetStream in memory: what is stored, repeated, delivered again, and lost. (See the contract.)"""

from __future__ import annotations

from typing import Any

import msgspec

from jetmap.nats.clock import ManualClock
from jetmap.nats.memory_jetstream import MemoryJetStream, MemoryMessage


class Server:
    def __init__(self) -> None:
        self.sent: list[MemoryMessage] = []
        self.clock = ManualClock()
        self.jetstream = MemoryJetStream(self.clock, self.sent.append)

    def do(self, subject: str, data: bytes = b"", reply: str = "") -> list[MemoryMessage]:
        """Handle a message; return what goes out."""
        self.sent.clear()
        assert self.jetstream.handle(MemoryMessage(subject, reply, data))
        return list(self.sent)

    def ask(self, call: str, **request: Any) -> list[MemoryMessage]:
        return self.do(f"$JS.API.{call}", msgspec.json.encode(request), "pull")


def test_a_stream_repeats_what_it_stores_under_another_subject() -> None:
    server = Server()
    rule = {"src": "a.>", "dest": "copy.>", "headers_only": True}
    server.ask("STREAM.CREATE.S", name="S", subjects=["a.>"], republish=rule)
    server.do("a.x", b"one")
    acknowledged, copy = server.do("a.x", b"four", "me")
    assert msgspec.json.decode(acknowledged.data) == {"stream": "S", "seq": 2}
    assert (copy.subject, copy.data) == ("copy.x", b"")
    headers = copy.headers or {}
    assert (headers["Nats-Last-Sequence"], headers["Nats-Msg-Size"]) == ("1", "4")
    assert not server.jetstream.handle(MemoryMessage("b.x", "", b""))


def test_what_is_not_acknowledged_is_delivered_again() -> None:
    server = Server()
    server.ask("STREAM.CREATE.S", name="S", subjects=["a.>"])
    server.ask("CONSUMER.CREATE.S.c", config={"ack_wait": 10**9})
    server.do("a.x", b"one")
    pull = {"batch": 1, "expires": 60 * 10**9}
    [first] = server.ask("CONSUMER.MSG.NEXT.S.c", **pull)
    assert (first.subject, first.to, first.data) == ("a.x", "pull", b"one")
    assert server.do(first.reply, b'-NAK {"delay": 500000000}') == []
    assert server.ask("CONSUMER.MSG.NEXT.S.c", **pull) == []
    server.clock.advance(0.5)
    [second] = server.sent
    assert server.ask("CONSUMER.MSG.NEXT.S.c", **pull) == []
    server.clock.advance(1.0)  # It was not acknowledged in time.
    [third] = server.sent
    assert [each.reply.split(".")[4] for each in (first, second, third)] == ["1", "2", "3"]
    server.do(third.reply, b"+ACK")
    assert server.jetstream.streams["S"].consumers["c"].pending == 0


def test_a_restart_loses_what_was_in_memory() -> None:
    server = Server()
    for name in ("memory", "file"):
        server.ask(f"STREAM.CREATE.{name}", name=name, subjects=[f"{name}.>"], storage=name)
    server.jetstream.restart(keep_files=True)
    assert list(server.jetstream.streams) == ["file"]
    server.jetstream.restart(keep_files=False)
    assert not server.jetstream.streams
