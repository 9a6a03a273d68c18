"""The contract of a broker, checked against a real nats-server and the one in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from brokers import Brokers
from jetmap.errors import BrokerUnreachable, LimitExceeded
from jetmap.jobs.filler import Filler
from jetmap.nats.answers import JetStreamError, checked, lacks_room
from jetmap.nats.broker import Broker
from jetmap.nats.errors import NoResponders
from waiting import wait_for, wait_until

pytestmark = pytest.mark.anyio

QUEUE: dict[str, Any] = {
    "name": "W",
    "subjects": ["w.>"],
    "retention": "workqueue",
    "storage": "memory",
    "discard": "new",
    "discard_new_per_subject": True,
    "max_msgs_per_subject": 1,
}
RECORDS: dict[str, Any] = {
    "name": "R",
    "subjects": ["r.>"],
    "storage": "file",
    "allow_direct": True,
    "allow_msg_ttl": True,
    "allow_rollup_hdrs": True,
    "max_msgs_per_subject": 1,
    "subject_delete_marker_ttl": 60 * 10**9,
    "republish": {"src": "r.>", "dest": "told.>"},
}


class Inbox:
    """The messages that arrive on a subject."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def receive(self, message: Any) -> None:
        self.messages.append(message)

    async def until(self, count: int) -> list[Any]:
        await wait_until(lambda: len(self.messages) >= count, f"{count} messages are here")
        return self.messages

    @property
    def data(self) -> list[bytes]:
        return [bytes(m.data) for m in self.messages]


async def listening(c: Broker, subject: str, **options: Any) -> Inbox:
    inbox = Inbox()
    await c.subscribe(subject, inbox.receive, **options)
    await c.flush()
    return inbox


async def stream(c: Broker, config: dict[str, Any]) -> None:
    await c.api(f"STREAM.CREATE.{config['name']}", config)


async def consumer(c: Broker, name: str, pattern: str, **options: Any) -> None:
    config = {
        "durable_name": name,
        "name": name,
        "filter_subject": pattern,
        "ack_policy": "explicit",
        "max_deliver": -1,
        "max_ack_pending": -1,
    } | options
    request = {"stream_name": "W", "config": config, "action": "create"}
    await c.api(f"CONSUMER.CREATE.W.{name}", request)


async def pull(c: Broker, name: str, reply: str, **request: Any) -> None:
    body = msgspec.json.encode({"batch": 1, "expires": 30 * 10**9} | request)
    await c.publish(f"$JS.API.CONSUMER.MSG.NEXT.W.{name}", body, reply)


async def put(c: Broker, subject: str, data: bytes = b"", **headers: str) -> int:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return int(checked(await c.request(subject, data, headers=named or None))["seq"])


async def refusal(c: Broker, subject: str, **headers: str) -> tuple[int, str]:
    with pytest.raises(JetStreamError) as caught:
        await put(c, subject, b"x", **headers)
    return caught.value.err_code, caught.value.description


# Subjects


async def test_messages_reach_every_subscription_that_fits_in_order(brokers: Brokers) -> None:
    a, b = await brokers.connect(), await brokers.connect()
    all_, one, none = [await listening(b, s) for s in ("t.>", "t.*.x", "t")]
    for n in range(20):
        await a.publish(f"t.{n}.x", b"%d" % n)
    await a.publish("t.a.b.c", b"last", headers={"K": "v"})
    messages = await all_.until(21)
    assert all_.data == [b"%d" % n for n in range(20)] + [b"last"]
    assert messages[-1].headers["K"] == "v" and messages[0].headers is None
    assert len(one.messages) == 20 and none.messages == []


async def test_a_queue_group_shares_its_messages(brokers: Brokers) -> None:
    a, b = await brokers.connect(), await brokers.connect()
    boxes = [await listening(c, "q", queue="g") for c in (a, b)]
    for _ in range(40):
        await a.publish("q")
    await wait_until(lambda: sum(len(box.messages) for box in boxes) == 40, "each went to one")


async def test_requests_are_answered_refused_or_time_out(brokers: Brokers, c: Broker) -> None:
    async def answer(message: Any) -> None:
        await c.publish(message.reply, bytes(message.data) * 2)

    await c.subscribe("double", answer)
    assert await c.request("double", b"ab") == b"abab"
    with pytest.raises(NoResponders):
        await c.request("nobody")
    await listening(c, "silent")
    asking = asyncio.ensure_future(c.request("silent", timeout=0.2))
    await asyncio.sleep(0)
    brokers.passing(1)
    with pytest.raises(BrokerUnreachable):
        await asking


async def test_what_is_too_large_is_refused_before_it_is_sent(c: Broker) -> None:
    with pytest.raises(LimitExceeded):
        await c.publish("t", bytes(c.max_payload + 1))


async def test_an_ended_subscription_gets_nothing(c: Broker) -> None:
    inbox, other = Inbox(), await listening(c, "t")
    subscription = await c.subscribe("t", inbox.receive)
    await subscription.unsubscribe()
    await subscription.unsubscribe()
    await c.publish("t")
    await other.until(1)
    assert inbox.messages == []


async def test_what_is_skipped_needs_no_callback(c: Broker) -> None:
    def skip(subject: bytes, payload: bytes) -> bool:
        if payload == b"bad":
            raise ValueError("not understood")
        return (subject, payload) == (b"a.b", b"old")

    inbox = await listening(c, "a.*", direct=True, skip=skip)
    errors = c.errors
    for payload in (b"old", b"new", b"bad", b"old", b"end"):
        await c.publish("a.b", payload)
    await c.publish("a.c", b"old")
    await inbox.until(4)
    assert inbox.data == [b"new", b"bad", b"end", b"old"]
    assert c.errors == errors + 1


async def test_a_callback_that_raises_is_counted_and_called_again(c: Broker) -> None:
    inbox = Inbox()

    async def fail(message: Any) -> None:
        await inbox.receive(message)
        raise ValueError

    await c.subscribe("t", fail)
    for _ in range(2):
        await c.publish("t")
    await inbox.until(2)
    await wait_until(lambda: c.errors == 2, "both are counted")


# A work queue


async def test_a_work_queue_holds_one_message_a_subject(c: Broker) -> None:
    await stream(c, QUEUE)
    await put(c, "w.a.1")
    assert await refusal(c, "w.a.1") == (10077, "maximum messages per subject exceeded")
    assert await refusal(c, "w.a.2", Nats_Expected_Stream="none") == (
        10060,
        "expected stream does not match",
    )
    await put(c, "w.a.2")
    info = await c.api("STREAM.INFO.W", {"subjects_filter": "w.a.>"})
    assert info["state"]["subjects"] == {"w.a.1": 1, "w.a.2": 1}
    assert (await c.api("STREAM.PURGE.W", {"filter": "w.*.1"}))["purged"] == 1
    assert (await c.api("STREAM.INFO.W"))["state"]["messages"] == 1


async def test_a_full_stream_refuses(c: Broker) -> None:
    await stream(c, QUEUE | {"max_msgs": 2})
    for n in range(2):
        await put(c, f"w.{n}")
    assert await refusal(c, "w.2") == (10077, "maximum messages exceeded")


async def test_pulls_take_each_message_once_with_the_backlog_behind_it(c: Broker) -> None:
    await stream(c, QUEUE)
    await consumer(c, "main", "w.main.>")
    inbox = await listening(c, "_INBOX.p.*")
    await pull(c, "main", "_INBOX.p.0")  # It waits before there is anything.
    for n in range(3):
        await put(c, f"w.main.{n}", b"%d" % n)
    await put(c, "w.other.0")
    await inbox.until(1)
    await pull(c, "main", "_INBOX.p.1")
    await pull(c, "main", "_INBOX.p.2")
    messages = await inbox.until(3)
    assert [m.subject for m in messages] == ["w.main.0", "w.main.1", "w.main.2"]
    acks = [m.reply.split(".") for m in messages]
    assert [(a[:4], a[4], a[8]) for a in acks][1:] == [
        (["$JS", "ACK", "W", "main"], "1", "1"),
        (["$JS", "ACK", "W", "main"], "1", "0"),
    ]
    for message in messages:
        await c.publish(message.reply, b"+ACK")
    await wait_until_state(c, 1)
    await put(c, "w.main.0")  # Its subject is free again.


async def wait_until_state(c: Broker, messages: int) -> None:
    async def found() -> bool:
        return bool((await c.api("STREAM.INFO.W"))["state"]["messages"] == messages)

    await wait_for(found, f"there are {messages} messages")


async def test_pulls_that_find_nothing_say_so(brokers: Brokers, c: Broker) -> None:
    await stream(c, QUEUE)
    await consumer(c, "main", "w.>")
    inbox = await listening(c, "_INBOX.p.*")
    await pull(c, "main", "_INBOX.p.0", expires=0, no_wait=True)
    await pull(c, "gone", "_INBOX.p.1")
    await pull(c, "main", "_INBOX.p.2", expires=10**9, idle_heartbeat=4 * 10**8)
    await inbox.until(2)
    for _ in range(4):
        brokers.passing(0.4)
    messages = await inbox.until(5)
    statuses = [(m.headers or {}).get("Status") for m in messages]
    assert sorted(statuses[:2]) == ["404", "503"]
    assert set(statuses[2:-1]) == {"100"} and statuses[-1] == "408"


async def test_what_is_not_acknowledged_comes_again(brokers: Brokers, c: Broker) -> None:
    await stream(c, QUEUE)
    await consumer(c, "main", "w.>", ack_wait=5 * 10**8)
    inbox = await listening(c, "_INBOX.p")
    await put(c, "w.1")
    await pull(c, "main", "_INBOX.p")
    await inbox.until(1)
    await pull(c, "main", "_INBOX.p")
    await asyncio.sleep(0)
    brokers.passing(0.6)
    messages = await inbox.until(2)
    assert [m.reply.split(".")[4] for m in messages] == ["1", "2"]
    await c.publish(messages[1].reply, b"-NAK")
    await pull(c, "main", "_INBOX.p")
    messages = await inbox.until(3)
    assert messages[2].reply.split(".")[4] == "3"
    await c.publish(messages[2].reply, b"+TERM")
    await wait_until_state(c, 0)


async def test_a_work_queues_consumers_may_not_overlap(c: Broker) -> None:
    await stream(c, QUEUE)
    await consumer(c, "a", "w.a.>")
    await consumer(c, "b", "w.b.>")
    with pytest.raises(JetStreamError) as caught:
        await consumer(c, "all", "w.>")
    assert caught.value.err_code == 10100
    page = await c.api("CONSUMER.LIST.W", {"offset": 0})
    assert {item["name"] for item in page["consumers"]} == {"a", "b"}


async def test_what_is_missing_is_named_by_number(c: Broker) -> None:
    for call, code in (
        ("STREAM.INFO.W", 10059),
        ("STREAM.MSG.GET.W", 10059),
        ("CONSUMER.INFO.W.c", 10059),
    ):
        with pytest.raises(JetStreamError) as caught:
            await c.api(call, {"seq": 1} if "MSG" in call else None)
        assert caught.value.err_code == code
    await stream(c, QUEUE)
    for call, code in (("STREAM.MSG.GET.W", 10037), ("CONSUMER.INFO.W.c", 10014)):
        with pytest.raises(JetStreamError) as caught:
            await c.api(call, {"last_by_subj": "w.1"} if "MSG" in call else None)
        assert caught.value.err_code == code


# Records: key-value with compare-and-set, TTL, direct get, republish


async def test_a_record_is_written_by_whoever_knows_its_last_version(c: Broker) -> None:
    await stream(c, RECORDS)
    first = await put(c, "r.k", b"1", Nats_Expected_Last_Subject_Sequence="0")
    code, text = await refusal(c, "r.k", Nats_Expected_Last_Subject_Sequence="0")
    assert code == 10071 and text == f"wrong last sequence: {first}"
    racing = await asyncio.gather(
        *(
            c.request("r.k", b"%d" % n, headers={"Nats-Expected-Last-Subject-Sequence": str(first)})
            for n in range(8)
        )
    )
    assert sum("error" not in msgspec.json.decode(answer) for answer in racing) == 1


async def test_what_is_stored_is_told_with_its_number(c: Broker) -> None:
    await stream(c, RECORDS)
    told = await listening(c, "told.>")
    seqs = [await put(c, "r.k", b"1"), await put(c, "r.k", b"2")]
    messages = await told.until(2)
    assert [m.subject for m in messages] == ["told.k", "told.k"] and told.data == [b"1", b"2"]
    assert [m.headers["Nats-Sequence"] for m in messages] == [str(seq) for seq in seqs]
    assert [m.headers["Nats-Last-Sequence"] for m in messages] == ["0", str(seqs[0])]


async def test_a_record_that_expires_leaves_a_marker(brokers: Brokers, c: Broker) -> None:
    await stream(c, RECORDS)
    told = await listening(c, "told.>")
    await put(c, "r.k", b"1", Nats_TTL="1s")
    await told.until(1)
    brokers.passing(1.1)
    marker = (await told.until(2))[1]
    assert marker.headers["Nats-Marker-Reason"] == "MaxAge" and not marker.data


async def test_records_are_read_in_order_and_in_batches(c: Broker) -> None:
    await stream(c, RECORDS)
    seqs = [await put(c, f"r.{n}", b"%d" % n) for n in range(5)]
    await put(c, "r.other.x")
    inbox = await listening(c, "_INBOX.d")
    request = {"seq": seqs[1], "next_by_subj": "r.*", "batch": 3, "max_bytes": 1 << 20}
    await c.publish("$JS.API.DIRECT.GET.R", msgspec.json.encode(request), "_INBOX.d")
    *messages, end = await inbox.until(4)
    assert [bytes(m.data) for m in messages] == [b"1", b"2", b"3"]
    lasts = [int(m.headers["Nats-Last-Sequence"]) for m in messages]
    assert lasts == [0, seqs[1], seqs[2]]
    assert end.headers["Status"] == "204"
    request = {"seq": 100, "next_by_subj": "r.*", "batch": 3}
    await c.publish("$JS.API.DIRECT.GET.R", msgspec.json.encode(request), "_INBOX.d")
    assert (await inbox.until(5))[4].headers["Status"] == "404"
    assert await c.request("$JS.API.DIRECT.GET.R.r.3") == b"3"


async def test_a_purge_stops_before_a_number(c: Broker) -> None:
    await stream(c, RECORDS | {"max_msgs_per_subject": -1})
    seqs = [await put(c, "r.k", b"%d" % n) for n in range(3)]
    answer = await c.api("STREAM.PURGE.R", {"filter": "r.k", "seq": seqs[2]})
    assert answer["purged"] == 2
    found = await c.api("STREAM.MSG.GET.R", {"next_by_subj": "r.k", "seq": 1})
    assert found["message"]["seq"] == seqs[2]


async def test_a_purge_keeps_the_last(c: Broker) -> None:
    await stream(c, RECORDS | {"max_msgs_per_subject": -1})
    seqs = [await put(c, "r.k", b"%d" % n) for n in range(4)]
    assert (await c.api("STREAM.PURGE.R", {"filter": "r.k", "keep": 1}))["purged"] == 3
    found = await c.api("STREAM.MSG.GET.R", {"last_by_subj": "r.k"})
    assert found["message"]["seq"] == seqs[-1]


async def test_one_message_is_deleted_by_its_number(c: Broker) -> None:
    await stream(c, RECORDS | {"max_msgs_per_subject": -1})
    seqs = [await put(c, "r.k", b"%d" % n) for n in range(3)]
    assert (await c.api("STREAM.MSG.DELETE.R", {"seq": seqs[1]}))["success"]
    with pytest.raises(JetStreamError) as caught:
        await c.api("STREAM.MSG.GET.R", {"seq": seqs[1]})
    assert caught.value.err_code == 10037
    with pytest.raises(JetStreamError) as caught:
        await c.api("STREAM.MSG.DELETE.R", {"seq": seqs[1]})
    assert caught.value.err_code == 10043
    found = await c.api("STREAM.MSG.GET.R", {"next_by_subj": "r.k", "seq": seqs[1]})
    assert found["message"]["seq"] == seqs[2]


async def test_a_stream_is_updated_with_its_messages_kept(c: Broker) -> None:
    with pytest.raises(JetStreamError) as caught:
        await c.api("STREAM.UPDATE.W", QUEUE)
    assert caught.value.err_code == 10059
    await stream(c, QUEUE)
    await put(c, "w.1")
    info = await c.api("STREAM.UPDATE.W", QUEUE | {"max_msgs": 1})
    assert info["config"]["max_msgs"] == 1 and info["state"]["messages"] == 1
    assert await refusal(c, "w.2") == (10077, "maximum messages exceeded")


async def test_a_stream_of_another_configuration_is_refused(c: Broker) -> None:
    await stream(c, QUEUE)
    await stream(c, QUEUE)
    with pytest.raises(JetStreamError) as caught:
        await stream(c, QUEUE | {"max_msgs": 1})
    assert caught.value.err_code == 10058


async def test_a_stream_that_is_full_of_bytes_has_no_room(c: Broker) -> None:
    await stream(c, QUEUE | {"max_bytes": 4096})
    await put(c, "w.1", bytes(3000))
    with pytest.raises(JetStreamError) as caught:
        await put(c, "w.2", bytes(3000))
    assert caught.value.err_code == 10077 and lacks_room(caught.value)
    await c.api("STREAM.PURGE.W")
    await put(c, "w.2", bytes(3000))


async def test_room_for_records_is_kept_and_released(c: Broker) -> None:
    await stream(c, {"name": "JETMAP_OUTCOMES_p", "subjects": ["jetmap.outcome.p.*"]})
    filler = Filler(c, "p")
    await filler.ensure((1,))
    assert await filler.probe_room()
    assert await filler.release() and filler.is_released
    assert not await filler.release()
    assert await filler.probe_room() and not filler.is_released
    info = await c.api("STREAM.INFO.JETMAP_SPARE_p")
    assert info["state"]["messages"] == 16
