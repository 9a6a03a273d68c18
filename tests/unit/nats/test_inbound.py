"""Messages are cut whatever the fragments, and large payloads are not joined."""

from __future__ import annotations

import io
import itertools

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.nats.inbound import READ_BYTES, Inbound
from jetmap.payload_buffer import LARGE_BYTES

sizes = st.one_of(
    st.integers(0, 40),
    st.integers(LARGE_BYTES - 2, LARGE_BYTES + 2),
    st.integers(READ_BYTES - 40, READ_BYTES + 40),
    st.integers(0, 3 * READ_BYTES),
)
messages = st.tuples(sizes, st.booleans(), st.sampled_from([b"", b"NATS/1.0\r\nA: b\r\n\r\n"]))
controls = st.sampled_from([b"PING", b"PONG", b"-ERR 'x'", b'INFO {"a": 1}'])
cuts = st.lists(st.one_of(st.integers(1, 70), st.integers(1, READ_BYTES)), min_size=1, max_size=8)


def payload_of(size: int) -> bytes:
    """Return bytes that hold ends of lines, and whose parts all differ."""
    return (b"\r\nPING\r\n%d" % size + bytes(range(251)) * (size // 251 + 1))[:size]


def sent(size: int, has_reply: bool, headers: bytes, number: int) -> bytes:
    reply = b"r.%d " % number if has_reply else b""
    kind, counts = b"MSG", b""
    if headers:
        kind, counts = b"HMSG", b"%d " % len(headers)
    total = len(headers) + size
    line = b"%s s.%d %d %s%s%d\r\n" % (kind, number, number, reply, counts, total)
    return line + headers + payload_of(size) + b"\r\n"


def feed(inbound: Inbound, data: bytes, cuts: list[int]) -> None:
    """Write data as a socket would: at most what fits, and what a cut allows."""
    at = 0
    for cut in itertools.cycle(cuts):
        if at >= len(data):
            return
        buffer = inbound.buffer()
        assert len(buffer)
        count = min(cut, len(buffer), len(data) - at)
        buffer[:count] = data[at : at + count]
        at += count
        inbound.on_read(count)


@examples(150)
@given(st.lists(st.one_of(messages, controls), max_size=8), cuts)
def test_messages_survive_any_fragmentation(
    given_: list[tuple[int, bool, bytes] | bytes], cuts: list[int]
) -> None:
    data = b"+OK\r\n"
    for number, one in enumerate(given_):
        data += one + b"\r\n" if isinstance(one, bytes) else sent(*one, number)
    inbound = Inbound()
    inbound.parse()
    feed(inbound, data, cuts)
    assert len(inbound.found) == len(given_)
    for number, (one, found) in enumerate(zip(given_, inbound.found, strict=True)):
        if isinstance(one, bytes):
            assert found == one
            continue
        size, has_reply, headers = one
        assert not isinstance(found, bytes)
        reply = b"r.%d" % number if has_reply else b""
        payload = found[3]
        assert (*found[:3], found[4]) == (number, b"s.%d" % number, reply, headers)
        assert (payload if isinstance(payload, bytes) else payload.getvalue()) == payload_of(size)
    assert inbound.size == sum(one[0] + len(one[2]) for one in given_ if not isinstance(one, bytes))


def test_a_large_payload_is_not_copied_again() -> None:
    inbound = Inbound()
    inbound.parse()
    size = 8 << 20
    line = b"MSG s 1 %d\r\n" % size
    feed(inbound, line + b"begin", [READ_BYTES])
    rooms = []
    left = size - 5
    while left:
        room = inbound.buffer()
        rooms.append(len(room))
        count = min(len(room), left)
        left -= count
        inbound.on_read(count)
        del room
    assert rooms == [size - 5]
    feed(inbound, b"\r\nPING\r\n", [1])
    message, ping = inbound.found
    assert ping == b"PING"
    payload = message[3]
    assert isinstance(payload, io.BytesIO) and payload.getvalue() is payload.getvalue()


@pytest.mark.parametrize(
    "line", [b"HELLO\r\n", b"MSG s 1\r\n", b"MSG s one 5\r\n", b"HMSG s 1 x 5\r\n", b"\r\n"]
)
def test_nonsense_is_refused(line: bytes) -> None:
    inbound = Inbound()
    inbound.parse()
    with pytest.raises(nats.errors.ProtocolError):
        feed(inbound, line, [len(line)])


def test_lines_are_not_parsed_before_the_first_parse() -> None:
    inbound = Inbound()
    feed(inbound, b"INFO {}\r\nPO", [3])
    assert inbound.line() == b"INFO {}\r\n" and inbound.line() is None
    feed(inbound, b"NG\r\nMSG s 1 1\r\nx", [100])
    assert inbound.line() == b"PONG\r\n"
    inbound.parse()
    feed(inbound, b"\r\n", [2])
    assert [found[3] for found in inbound.found if not isinstance(found, bytes)] == [b"x"]


def test_a_line_longer_than_the_buffer_gets_room() -> None:
    inbound = Inbound()
    info = b"INFO " + b"x" * 3 * READ_BYTES + b"\r\n"
    feed(inbound, info, [READ_BYTES])
    assert inbound.line() == info
