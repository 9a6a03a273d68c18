"""A payload's buffer: it is filled in place, and its bytes are handed on as they are."""

from __future__ import annotations

from jetmap.payload_buffer import LARGE_BYTES, payload_buffer


def test_what_was_filled_in_is_handed_on_without_a_copy() -> None:
    buffer = payload_buffer(LARGE_BYTES)
    with buffer.getbuffer() as room:
        assert len(room) == LARGE_BYTES
        room[:3] = b"abc"
    value = buffer.getvalue()
    assert value == b"abc" + bytes(LARGE_BYTES - 3)
    assert buffer.getvalue() is value
