"""Bytes wait in memory, then in files, within the limits of all requests."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.dispatch.open_map import Memory
from jetmap_api.admission import Admission, Reservation
from jetmap_api.problems import Problem
from jetmap_api.spool import SpooledParts, SpooledPipe
from raw_bodies import LIMITS

pytestmark = pytest.mark.anyio
SMALL = LIMITS.replace(max_buffer_bytes=10, max_spool_bytes=100)


def reservation() -> Reservation:
    return Reservation(Admission(SMALL), Memory(SMALL.memory_budget()))


async def test_a_reader_waits_for_bytes_and_a_writer_for_room() -> None:
    pipe = SpooledPipe(SMALL, reservation())
    reader = asyncio.create_task(pipe.get())
    await asyncio.sleep(0)
    pipe.put(b"x")
    assert await reader == b"x"
    pipe.put(b"y" * 30)
    room = asyncio.create_task(pipe.room())
    await asyncio.sleep(0)
    assert not room.done()
    await pipe.get()
    await room


async def test_the_limit_of_files_is_kept() -> None:
    pipe = SpooledPipe(SMALL, reservation())
    pipe.put(b"x" * 10)
    with pytest.raises(Problem) as caught:
        pipe.put(b"y" * 101)
    assert caught.value.members["setting"] == "max_spool_bytes"
    pipe.discard()
    assert pipe.size == 0


def test_parts_are_read_in_any_order() -> None:
    held = reservation()
    parts = SpooledParts(SMALL, held)
    offsets = [(parts.add(data), data) for data in (b"one", b"twelve", b"")]
    assert held.spooled == 9
    for offset, data in reversed(offsets):
        assert parts.read(offset, len(data)) == data
    with pytest.raises(Problem):
        parts.add(b"x" * 92)
    parts.close()
    SpooledParts(SMALL, held).close()
