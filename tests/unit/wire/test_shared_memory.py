"""Regions of shared memory: given out once, read whole or not at all, and given back."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.wire import shared_memory
from jetmap.wire.messages import Region
from jetmap.wire.scattered import LEAST, scattered
from jetmap.wire.shared_memory import ALIGN, DATA, HEADER, Arena, Segment, View, Writer

SIZE = DATA + (1 << 20)

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="no memory files here")


@pytest.fixture
def segment() -> Iterator[Segment]:
    segment = Segment.create(SIZE)
    yield segment
    segment.close()


@pytest.fixture
def writer(segment: Segment) -> Writer:
    return Writer(segment)


@pytest.fixture
def view(segment: Segment) -> Iterator[View]:
    fd = segment.reopened()
    view = View(fd)
    os.close(fd)
    yield view
    view.close()


@examples(200)
@given(st.lists(st.integers(-20, 3000), max_size=60))
def test_regions_never_overlap_and_all_of_them_come_back(steps: list[int]) -> None:
    """A step allocates that many bytes, or frees the region that is in use at that place."""
    arena, out, generations = Arena(64, 64 + 8192), [], set()
    for step in steps:
        if step < 0:
            if out:
                arena.free(out.pop(step % len(out)))
        elif (region := arena.allocate(step)) is not None:
            assert region.generation not in generations
            generations.add(region.generation)
            out.append(region)
        else:
            assert 4 * (step + HEADER) > arena.size - 4 * ALIGN or arena.used
        ends = sorted((r.offset, r.offset + HEADER + r.size) for r in out)
        assert all(a <= b for (_, a), (b, _) in itertools.pairwise(ends))
        assert not ends or (ends[0][0] >= 64 and ends[-1][1] <= 64 + 8192)
        assert sorted(arena, key=id) == sorted(out, key=id)
        assert sum(r.size + HEADER for r in out) <= arena.used <= arena.size
    for region in out:
        arena.free(region)
    assert not arena.used and [arena.allocate(2000).offset for _ in range(4)] == [  # type: ignore[union-attr]
        64 + i * 2048 for i in range(4)
    ]


def test_a_region_is_freed_once_and_the_lowest_gap_is_used_first() -> None:
    arena = Arena(0, 4096)
    first, second = arena.allocate(100), arena.allocate(100)
    assert first is not None and second is not None and not first.offset
    arena.free(first)
    with pytest.raises(KeyError):
        arena.free(first)
    again = arena.allocate(100)
    assert again is not None and again.offset == 0 and again.generation > second.generation
    assert arena.allocate(1024) is None, "a quarter is the most"
    assert not arena.is_crowded
    while arena.allocate(900):
        pass
    assert arena.is_crowded


def test_what_was_written_is_read_until_the_region_is_freed(writer: Writer, view: View) -> None:
    data = [os.urandom(size) for size in (0, 1, 100_000)]
    regions = [writer.put(part) for part in data]
    assert all(regions) and [view.read(region) for region in regions if region] == data
    first = regions[0]
    assert first is not None
    writer.free(first)
    assert view.read(first) is None
    other = writer.put(b"x")
    assert other is not None and other.offset == first.offset
    assert view.read(first) is None and view.read(other) == b"x"


def test_a_region_that_changes_while_it_is_copied_is_not_read(writer: Writer, view: View) -> None:
    region = writer.put(b"x" * 100)
    assert region is not None
    words = [region.generation, 0]

    class Words:
        def __getitem__(self, at: int) -> int:
            assert at == region.offset // 8
            return words.pop(0)

        def release(self) -> None: ...

    real, view._words = view._words, Words()  # type: ignore[assignment]
    assert view.read(region) is None and not words
    view._words = real
    assert view.read(region) == b"x" * 100


def test_a_region_that_changes_while_it_is_decoded_is_not_read(writer: Writer, view: View) -> None:
    region = writer.put(b"x" * 100)
    assert region is not None

    def fail(data: memoryview) -> None:
        raise ValueError(bytes(data[:1]))

    assert view.read_by(len, region) == 100
    with pytest.raises(ValueError, match="x"):
        view.read_by(fail, region)

    def free_and(take: Any) -> Any:
        def taken(data: memoryview) -> Any:
            writer.free(region)
            return take(data)

        return taken

    assert view.read_by(free_and(len), region) is None
    region = writer.put(b"x" * 100)
    assert region is not None
    assert view.read_by(free_and(fail), region) is None, "it is an error of other bytes"


def test_scattered_parts_are_written_one_behind_the_other(writer: Writer, view: View) -> None:
    values = [os.urandom(LEAST), b"", os.urandom(2 * LEAST)]
    parts = scattered(values)
    assert parts is not None
    region = writer.put(parts)
    assert region is not None and view.read(region) == msgspec.msgpack.encode(values)


@pytest.mark.parametrize("offset", [0, 8, DATA + 4, SIZE, -8])
def test_a_region_outside_is_not_read(view: View, offset: int) -> None:
    assert view.read(Region(offset, 16, 0)) is None


def test_another_process_frees_a_region_by_its_generation(writer: Writer, view: View) -> None:
    region, kept = writer.put(b"1"), writer.put(b"2")
    assert region is not None and kept is not None
    agent = Segment(os.dup(writer.segment.fd))
    agent.erase(region.offset)
    agent.close()
    writer.collect()
    assert list(writer.arena) == [kept] and view.read(kept) == b"2"


def test_memory_is_given_back_after_a_rest(writer: Writer, view: View) -> None:
    def blocks() -> int:
        return os.fstat(writer.segment.fd).st_blocks

    region = writer.put(bytes(200_000))
    assert region is not None
    writer.free(region)
    full = blocks()
    writer.rest()
    assert blocks() == full, "it was in use a moment ago"
    writer.rest()
    assert blocks() * 512 <= DATA
    again = writer.put(b"again")
    assert again is not None and view.read(again) == b"again"
    writer.rest()
    writer.rest()
    assert view.read(again) == b"again", "it is in use"


def test_without_memory_nothing_is_written(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert writer.put(bytes(100)) is None and not writer.arena.used


def test_only_a_segment_is_mapped_and_nobody_makes_it_smaller(segment: Segment) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(segment.fd, DATA)
    fd = segment.reopened()
    with pytest.raises(OSError):
        os.write(fd, b"x")
    os.close(fd)
    unsealed = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, SIZE)
    with pytest.raises(ValueError, match="truncated"):
        View(unsealed)
    os.close(unsealed)
    with Path(__file__).open("rb") as file, pytest.raises(OSError):
        View(file.fileno())
