"""Packing: plain pickles, blobs for large buffers, code with its file."""

from __future__ import annotations

import datetime
import functools
import io
import math
import multiprocessing
import pickle
import socket
import sys
import types
from collections.abc import Callable
from multiprocessing import resource_sharer
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import calls
from jetmap.executor.packing import (
    BLOB_BYTES,
    PROTOCOL,
    blobs_of,
    pack,
    pack_call,
    packed_whole,
    unpack,
)


class Kept:
    def __init__(self) -> None:
        self.blobs: list[bytearray] = []

    def put(self, buffer: memoryview) -> int:
        self.blobs.append(bytearray(buffer))
        return len(self.blobs) - 1

    def get(self, number: int) -> memoryview:
        return memoryview(self.blobs[number])


@pytest.mark.parametrize(
    ("value", "blobs"),
    [
        (1, 0),
        ("x" * 1000, 0),
        (b"x" * BLOB_BYTES, 1),
        (["x" * BLOB_BYTES, 2], 1),
        (np.ones(10), 0),
        ({"a": np.ones(BLOB_BYTES), "b": np.zeros(BLOB_BYTES)}, 2),
        (np.ones((1000, 1000))[:, ::2], 1),
    ],
    ids=str,
)
def test_large_parts_become_blobs(value: object, blobs: int) -> None:
    kept = Kept()
    packed = pack(value, kept.put)
    assert len(kept.blobs) == blobs and blobs_of(packed) == list(range(blobs))
    assert len(packed) < BLOB_BYTES
    np.testing.assert_equal(unpack(packed, kept.get), value)


def test_arguments_keep_their_types() -> None:
    kept = Kept()
    for args, kwargs in (((1, "a"), {}), (((1,), {2}), {"x": calls.Point(1)})):
        assert unpack(pack_call(args, kwargs, kept.put), kept.get) == (args, kwargs)


def test_code_that_travels_by_value_knows_its_file() -> None:
    def local() -> int:
        return 1

    kept = Kept()
    found = unpack(pack(local, kept.put), kept.get)
    assert found is not local and found() == 1
    assert found.__code__.co_filename == __file__


def test_bound_methods_travel_by_name() -> None:
    kept = Kept()
    assert unpack(pack(calls.Point.at, kept.put), kept.get) == calls.Point.at
    moved = unpack(pack(calls.Point(1).moved, kept.put), kept.get)
    assert moved(2) == calls.Point(3)


def test_functions_of_main_come_home(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    def chosen() -> int:
        return 1

    chosen.__module__, chosen.__qualname__ = "__main__", "chosen"
    kept = Kept()
    packed = pack(chosen, kept.put, home=True)
    assert unpack(packed, kept.get) is not chosen and unpack(packed, kept.get)() == 1
    monkeypatch.setattr(__main__, "chosen", chosen, raising=False)
    assert unpack(packed, kept.get) is chosen


def test_an_open_file_does_not_travel_as_in_a_process_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept()
    with Path(__file__).open(encoding="utf-8") as file:
        packings: list[Callable[[], bytes]] = [
            lambda: pack(file, kept.put, home=True),
            lambda: pack_call((file,), {}, kept.put),
            lambda: pack_call((), {"source": [file]}, kept.put),
            lambda: pack(lambda: file, kept.put),
            lambda: packed_whole(file),
        ]
        for packing in packings:
            with pytest.raises(TypeError, match=r"cannot pickle '_io\.TextIOWrapper' .* its path"):
                packing()
        monkeypatch.setattr(sys, "stdout", file)
        assert unpack(pack(file, kept.put), kept.get) is file
    found = unpack(pack(io.StringIO("a"), kept.put, home=True), kept.get)
    assert found.getvalue() == "a"


async def awaited_by_nobody() -> None: ...


def test_a_coroutine_is_refused_with_what_to_do() -> None:
    coroutine = awaited_by_nobody()
    with pytest.raises(TypeError, match=r"cannot pickle 'coroutine' object; .* not async def"):
        pack(coroutine, Kept().put, home=True)
    coroutine.close()


def test_what_cannot_be_pickled_leaves_nothing_behind() -> None:
    kept = Kept()
    with pytest.raises(pickle.PicklingError, match="not this one"):
        pack([np.ones(BLOB_BYTES), calls.NoPickle()], kept.put)
    assert kept.blobs == []


def test_functions_and_classes_of_modules_travel_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for named in (calls.add, calls.Point, abs, math.sqrt, int):
        assert pack(named, Kept().put) == pickle.dumps(named, PROTOCOL)
    bound = unpack(pack([3].append, Kept().put), Kept().get)
    assert bound.__self__ == [3]
    found = unpack(pack(datetime.datetime.now, Kept().put), Kept().get)
    assert found() <= datetime.datetime.now()
    # Unless somebody has asked cloudpickle for another way.
    cloudpickle.register_pickle_by_value(calls)
    try:
        assert b"co_filename" not in (data := pack(calls.add, Kept().put)) and len(data) > 200
    finally:
        cloudpickle.unregister_pickle_by_value(calls)


def test_a_method_of_a_callable_without_a_name_travels() -> None:
    method = types.MethodType(functools.partial(calls.add), 3)
    assert unpack(pack(method, Kept().put), Kept().get)(4) == 7


def test_connections_and_sockets_travel_by_descriptor() -> None:
    """Their pickles would be numbers of files, which mean others elsewhere."""
    kept = Kept()
    reader, writer = multiprocessing.Pipe()
    ours, theirs = socket.socketpair()
    try:
        found = unpack(pack_call((writer,), {"end": [theirs]}, kept.put), kept.get)
        (writer_there,), kwargs = found
        (end,) = kwargs["end"]
        with writer_there, end:
            assert writer_there.fileno() != writer.fileno()
            writer_there.send("hello")
            assert reader.recv() == "hello"
            end.send(b"!")
            assert ours.recv(1) == b"!"
    finally:
        for each in (reader, writer, ours, theirs):
            each.close()
        resource_sharer.stop(timeout=10)


def test_a_memoryview_stays_one() -> None:
    assert there_and_back(memoryview(b"abc")) == memoryview(b"abc")
    with pytest.raises(TypeError, match=r"tobytes\(\)"):
        pack(memoryview(b"abcd").cast("I"), Kept().put)


def test_a_value_too_deep_raises_as_in_a_process_pool() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        pack(deep, Kept().put)
    while deep:  # Freed level by level.
        deep = deep.pop()  # type: ignore[assignment]


def there_and_back(value: object) -> object:
    kept = Kept()
    found: object = unpack(pack(value, kept.put), kept.get)
    assert type(found) is type(value)
    return found
