"""Announcements of agents, as other releases send them."""

from __future__ import annotations

import msgspec
import pytest

from jetmap.wire.messages import encode
from jetmap.wire.presence import (
    EMPTY,
    CoreDetail,
    CoreState,
    CoreStatus,
    FunctionInfo,
    Presence,
    differ_in_time,
    offer_digest,
    pack_cells,
    read_presence,
    time_of,
)


def announced(protocol: int = 1) -> Presence:
    return Presence(
        agent="a",
        host="h1",
        pid=1,
        pool="p",
        offer="o",
        version="1",
        rank=2,
        cores=4,
        ready=3,
        busy=1,
        draining=False,
        gone=False,
        functions=[],
        listed=[],
        protocol=protocol,
    )


def test_an_announcement_is_read_whole() -> None:
    assert read_presence(encode(announced(2))) == announced(2)


def test_of_an_announcement_of_another_shape_only_the_sender_is_read() -> None:
    fields = msgspec.msgpack.decode(encode(announced()))
    strange = fields | {"cores": "two", "protocol": 9, "oldest_protocol": 9}
    presence = read_presence(msgspec.msgpack.encode(strange))
    assert (presence.host, presence.protocol, presence.cores) == ("h1", 9, 0)
    with pytest.raises(msgspec.ValidationError):
        read_presence(msgspec.msgpack.encode(fields | {"cores": "two"}))


def with_cores(*cores: tuple[CoreState, str | None], now: float = 10.0) -> Presence:
    running, cells = pack_cells(cores)
    details = [CoreDetail(n, n, "m" if f else None, 7.5, n) for n, (_, f) in enumerate(cores)]
    return msgspec.structs.replace(
        announced(5),
        running=running,
        cells=cells,
        details=msgspec.Raw(encode(details)),
        counted=msgspec.Raw(encode([("f", "ok", 3)])),
        now=now,
    )


def test_cores_are_a_byte_each_and_their_details_are_read_when_asked_for() -> None:
    sent = with_cores(("busy", "g"), ("idle", None), ("busy", "f"), ("busy", "g"), ("failed", None))
    presence = read_presence(encode(sent))
    assert (presence.running, presence.cells) == (["g", "f"], bytes([3, 1, 4, 3, 2]))
    assert presence.workers[:2] == [
        CoreStatus(0, 0, "busy", "g", "m", 2.5, 0),
        CoreStatus(1, 1, "idle", None, None, 2.5, 1),
    ]
    assert [core.state for core in presence.workers[2:]] == ["busy", "busy", "failed"]
    assert presence.items == [("f", "ok", 3)]
    presence.now += 1.0
    assert presence.workers[0].seconds == 3.5
    presence.details = EMPTY
    assert presence.workers == [], "they did not fit"


def test_more_functions_than_a_byte_can_name_share_the_last_number() -> None:
    presence = with_cores(*(("busy", f"f{n}") for n in range(400)))
    assert len(presence.cells) == len(presence.workers) == 400
    assert [core.function for core in presence.workers[251:254]] == ["f251", "f252", "f252"]


def test_the_cores_of_older_releases_have_cells() -> None:
    cores = [CoreStatus(1, 0, "busy", "f", "m", 1.0, 2), CoreStatus(2, 1, "starting")]
    old = msgspec.structs.replace(announced(4), listed=cores)
    presence = read_presence(encode(old))
    assert presence.workers == cores
    assert (presence.running, presence.cells) == (["f"], bytes([3, 0]))


def test_announcements_that_differ_in_time_only_are_recognised() -> None:
    first, later = (encode(with_cores(("idle", None), now=now)) for now in (10.0, 12.0))
    assert differ_in_time(first, later) and (time_of(first), time_of(later)) == (10.0, 12.0)
    assert not differ_in_time(first, encode(with_cores(("busy", "f"), now=12.0)))


def test_a_digest_stands_for_functions_in_any_order() -> None:
    f, g = FunctionInfo("f"), FunctionInfo("g", item={"type": "integer"})
    digests = {
        offer_digest({"f": f, "g": g}),
        offer_digest({"g": g, "f": f}),
        offer_digest({"f": f}),
    }
    assert len(digests) == 2 and offer_digest({}) == ""
