"""Bytes wait in memory, then in files, within the limits of all requests."""

from __future__ import annotations

import asyncio
import errno
import io
from typing import Any

import pytest

from jetmap.dispatch.memory import Memory
from jetmap_api import spool
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


class FullDisk(io.BytesIO):
    """A file on a disk with room for some bytes."""

    room = 50

    def write(self, data: Any, /) -> int:
        if not (left := self.room - self.tell()):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data[:left])


async def test_a_full_disk_costs_nothing_but_what_it_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "_temporary_file", FullDisk)
    held = reservation()
    pipe = SpooledPipe(SMALL, held)
    pipe.put(b"x" * 10)
    pipe.put(b"y" * 40)
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            pipe.put(b"z" * 20)
        assert caught.value.status == 507
    pipe.end(b"last")
    pipe.end(b"later")
    found = b""
    while (data := await pipe.get()) is not None:
        assert data
        found += data
    assert found == b"x" * 10 + b"y" * 40 + b"last"
    assert (pipe.size, held.spooled, held.size) == (0, 0, 0)


async def test_a_disk_that_is_full_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_temporary_file", FullDisk)
    monkeypatch.setattr(FullDisk, "room", 0)
    pipe = SpooledPipe(SMALL, reservation())
    pipe.put(b"x" * 10)
    with pytest.raises(Problem):
        pipe.put(b"y")
    pipe.end(b"last")
    assert [await pipe.get() for _ in range(3)] == [b"x" * 10, b"last", None]


def test_parts_that_were_written_can_be_read_on_a_full_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "_temporary_file", FullDisk)
    parts = SpooledParts(SMALL, reservation())
    at = parts.add(b"y" * 40)
    with pytest.raises(Problem):
        parts.add(b"z" * 20)
    assert parts.read(at, 40) == b"y" * 40
