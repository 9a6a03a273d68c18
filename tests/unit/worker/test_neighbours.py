"""A worker that reads items in its dispatcher's memory, and writes its values to its own."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from jetmap.codecs import codec_for
from jetmap.functions.function import Function
from jetmap.wire import shared_memory
from jetmap.wire.messages import Place, Region
from jetmap.wire.shared_memory import Segment, Writer
from jetmap.wire.worker_start import Joined
from jetmap.worker.neighbours import NeighbourSegments

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="no memory files here")


def chunk(inbox: str, region: Region | None) -> Any:
    return SimpleNamespace(inbox=inbox, at=Place(inbox, 5, region))


def test_items_and_values_are_shared_from_joining_to_leaving() -> None:
    items, values = Writer(Segment.create(1 << 20)), Segment.create(1 << 20)
    region = items.put(b"items")
    worker = NeighbourSegments(os.getpid())
    worker.join(Joined("d1", items.segment.fd, values.fd, 3))
    assert "d1" in worker and "d2" not in worker
    assert worker.items(chunk("d1", region)) == b"items"
    assert worker.items(chunk("d1", None)) is None and worker.items(chunk("d2", region)) is None
    places = [worker.put(b"x" * 200_000) for _ in range(6)]
    kept = [place for place in places if place is not None]
    assert len(kept) == 5 and kept[0].arena == 3, "it is full, and does not wait"
    values.erase(kept[0].region.offset)
    again = worker.put(b"y")
    assert again is not None and again.region.offset == kept[0].region.offset
    worker.leave("d1")
    assert "d1" not in worker and worker.items(chunk("d1", region)) is None
    worker.close()
    items.segment.close()
    values.close()


def test_items_are_decoded_where_they_are_unless_that_runs_code_or_shares_bytes() -> None:
    class Point(msgspec.Struct):
        x: int

    items = Writer(Segment.create(1 << 20))
    values = Segment.create(1 << 20)
    worker = NeighbourSegments(os.getpid())
    worker.join(Joined("d1", items.segment.fd, values.fd, 3))

    def decoded(type: Any, sent: list[Any], count: int | None = None) -> list[Any] | None:
        region = items.put(msgspec.msgpack.encode(sent))
        assert region is not None
        arrived = chunk("d1", region)
        arrived.count, arrived.format = len(sent) if count is None else count, "msgpack"
        found = worker.decoded(arrived, cast(Function, SimpleNamespace(item=codec_for(type))))
        items.segment.write(region, bytes(region.size))
        items.free(region)
        return found

    assert decoded(bytes, [b"a" * 5000, b""]) == [b"a" * 5000, b""]
    assert decoded(dict[str, float], [{"a": 0.5}]) == [{"a": 0.5}]
    assert decoded(memoryview, [b"a"]) is None and decoded(list[memoryview], [[b"a"]]) is None
    assert decoded(Point, [{"x": 1}]) is None and decoded(msgspec.Raw, [1]) is None
    assert decoded(int, ["1"]) is None, "it does not fit, and that is found later"
    assert decoded(int, [1, 2], count=3) is None
    assert worker.decoded(chunk("d2", None), cast(Function, SimpleNamespace(item=None))) is None
    worker.close()
    items.segment.close()
    values.close()


def test_memory_that_is_no_segment_is_refused() -> None:
    values = Segment.create(1 << 20)
    worker = NeighbourSegments(os.getpid())
    with open("/dev/null", "rb") as file, pytest.raises((OSError, ValueError)):  # noqa: PTH123
        worker.join(Joined("d1", file.fileno(), values.fd, 1))
    assert "d1" not in worker
    with pytest.raises(OSError):
        worker.join(Joined("d1", 1 << 20, values.fd, 1))
    worker.close()
    values.close()
