"""The API of JetStream in memory: the errors and statuses of a real server. (See the contract.)"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jetmap.nats.clock import ManualClock
from jetmap.nats.memory_jetstream import MemoryJetStream, MemoryMessage


class Server:
    def __init__(self) -> None:
        self.sent: list[MemoryMessage] = []
        self.jetstream = MemoryJetStream(ManualClock(), self.sent.append)
        self.ask("STREAM.CREATE.S", name="S", subjects=["a.>"], allow_direct=True)

    def ask(self, call: str, **request: Any) -> Any:
        """Return the answer to a request; None if nothing answers."""
        data = msgspec.json.encode(request)
        if not self.jetstream.handle(MemoryMessage(f"$JS.API.{call}", "me", data)):
            return None
        return msgspec.json.decode(self.sent.pop().data)

    def status(self, call: str, **request: Any) -> str:
        """Return the status that answers a request."""
        data = msgspec.json.encode(request)
        assert self.jetstream.handle(MemoryMessage(f"$JS.API.{call}", "me", data))
        return (self.sent.pop().headers or {})["Status"]


def code(answer: Any) -> int:
    found: int = answer["error"]["err_code"]
    return found


def test_what_is_not_there_has_an_error_or_no_answer() -> None:
    server = Server()
    assert code(server.ask("STREAM.INFO.T")) == 10059
    assert code(server.ask("CONSUMER.INFO.S.c")) == 10014
    assert code(server.ask("STREAM.MSG.GET.S", seq=1)) == 10037
    assert code(server.ask("STREAM.MSG.DELETE.S", seq=1)) == 10043
    assert server.status("DIRECT.GET.S", last_by_subj="a.x") == "404"
    assert server.status("DIRECT.GET.S", seq=1, batch=3) == "404"
    for call in ("SERVER.PURGE", "STREAM.SNAPSHOT.S", "CONSUMER.MSG.NEXT.S.c", "DIRECT.GET.T.a.x"):
        assert server.ask(call) is None, call


def test_what_is_there_is_not_made_anew() -> None:
    server = Server()
    again = {"name": "S", "subjects": ["a.>"], "allow_direct": True}
    assert "error" not in server.ask("STREAM.CREATE.S", **again)
    assert code(server.ask("STREAM.CREATE.S", **again, max_msgs=1)) == 10058
    assert code(server.ask("STREAM.CREATE.R", name="R", num_replicas=3)) == 10074
    assert server.ask("STREAM.UPDATE.S", **again, max_msgs=1)["config"]["max_msgs"] == 1
    assert server.ask("STREAM.NAMES") == {"streams": ["S"], "total": 1, "offset": 0}


@pytest.mark.parametrize(
    ("wanted", "unique"),
    [("a.x", False), ("a.*", False), ("a.>", False), ("a.y", True), ("a.x.b", True)],
)
def test_consumers_of_a_work_queue_share_no_subject(wanted: str, unique: bool) -> None:
    server = Server()
    server.ask("STREAM.CREATE.W", name="W", subjects=["a.>"], retention="workqueue")
    config = {"config": {"filter_subject": "a.x"}}
    assert server.ask("CONSUMER.CREATE.W.one", **config)["name"] == "one"
    assert "error" not in server.ask("CONSUMER.CREATE.W.one", **config)
    changed = {"config": {"filter_subject": "a.x", "ack_wait": 1}}
    assert code(server.ask("CONSUMER.CREATE.W.one", **changed)) == 10148
    answer = server.ask("CONSUMER.CREATE.W.two", config={"filter_subject": wanted})
    assert ("error" not in answer) is unique


def test_a_stream_that_is_deleted_ends_the_pulls_of_its_consumers() -> None:
    server = Server()
    server.ask("CONSUMER.CREATE.S.c", config={})
    assert server.status("CONSUMER.MSG.NEXT.S.c", no_wait=True) == "404"
    server.jetstream.handle(MemoryMessage("$JS.API.CONSUMER.MSG.NEXT.S.c", "pull", b""))
    assert server.ask("CONSUMER.LIST.S")["consumers"][0]["num_waiting"] == 1
    assert server.ask("STREAM.DELETE.S") == {"success": True}
    [ended] = server.sent
    assert (ended.subject, (ended.headers or {})["Status"]) == ("pull", "409")
