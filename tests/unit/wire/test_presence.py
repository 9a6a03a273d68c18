"""Announcements of agents, as other releases send them."""

from __future__ import annotations

import msgspec
import pytest

from jetmap.wire.messages import encode
from jetmap.wire.presence import Presence, read_presence


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
        workers=[],
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
