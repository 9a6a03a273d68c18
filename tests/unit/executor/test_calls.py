"""Calls on their way: taken in order, cancelled until then, resolved one by one."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import Any

import msgspec
import numpy as np
import pytest

import calls
from jetmap.dispatch.outcomes import Batch
from jetmap.errors import ExecutorBroken, Unpicklable, WorkerLost
from jetmap.executor.blobs import Blobs, write
from jetmap.executor.calls import CallSource, ItemSource, Pending
from jetmap.executor.packing import BLOB_BYTES, pack
from jetmap.executor.remote import BROKEN, LOST, RAISED, VALUE
from jetmap.wire.messages import ErrorRecord

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def never(failure: ExecutorBroken) -> None:
    raise failure


def nowhere(buffer: memoryview) -> int:
    raise AssertionError("no blobs here")


def source_of(data: list[bytes], *, most: int | None = None) -> tuple[CallSource, list[Any]]:
    """Make calls of a function whose cost is known."""
    source = CallSource(1, Blobs(), never, most)
    source._recent.append("f")
    futures: list[Future[Any]] = [Future() for _ in data]
    for future, each in zip(futures, data, strict=True):
        source.add(Pending(future, each, [], "f"))
    return source, futures


def batch(start: int, *values: Any, errors: list[ErrorRecord] | None = None) -> Batch:
    return Batch(start, len(values), encode(values), errors or [])


def test_calls_are_taken_in_order_within_their_bytes() -> None:
    source, futures = source_of([b"a" * 10, b"b" * 10, b"c" * 100, b"d"])
    assert (source.total, source.remaining, source.has_items) == (None, 4, True)
    piece = source.take(10, 50)
    assert piece is not None and (piece.start, piece.count) == (0, 2)
    assert decode(piece.items) == [b"a" * 10, b"b" * 10]
    piece = source.take(10, 50)
    assert piece is not None and (piece.start, piece.count) == (2, 1)
    assert futures[2].running() and not futures[3].running()
    source.close()
    assert source.total == 4


def test_a_call_of_another_function_than_those_before_goes_alone() -> None:
    source, _ = source_of([b"a", b"b"])
    for name in "gghg":
        source.add(Pending(Future(), b"c", [], name))

    def taken() -> int:
        piece = source.take(10, 1000)
        assert piece is not None
        return piece.count

    assert [taken(), taken()] == [2, 1]
    source.on_batch(batch(2, 1))  # One of g has ended, so g is known; h is not.
    assert [taken(), taken(), taken()] == [1, 1, 1]
    for _ in range(8):
        source.add(Pending(Future(), b"g", [], "g"))
    source.on_batch(batch(3, *range(3)))
    assert taken() == 8
    source.on_batch(batch(6, *range(8)))
    source.add(Pending(Future(), b"f", [], "f"))
    source.add(Pending(Future(), b"f", [], "f"))
    assert [taken(), taken()] == [1, 1], "what f took was long ago"


def test_cancelled_calls_are_left_out() -> None:
    source, futures = source_of([b"a", b"b", b"c"])
    assert futures[1].cancel()
    piece = source.take(10, 1000)
    assert piece is not None and decode(piece.items) == [b"a", b"c"]
    assert source.take(10, 1000) is None
    source.close()
    assert source.total == 2


def test_cancelling_spares_the_calls_that_have_a_worker() -> None:
    source, futures = source_of([b"a", b"b", b"c"])
    source.cancel()
    assert [future.cancelled() for future in futures] == [False, True, True]
    source, futures = source_of([b"a", b"b", b"c"])
    source.take(1, 1000)
    source.cancel()
    assert [future.cancelled() for future in futures] == [False, True, True]


def test_one_call_a_chunk() -> None:
    source, _ = source_of([b"a", b"b"], most=1)
    piece = source.take(10, 1000)
    assert piece is not None and piece.count == 1


def test_futures_get_values_and_errors() -> None:
    source, futures = source_of([b""] * 6)
    source.take(10, 1000)
    error = encode((pack(ValueError("x"), nowhere), "the traceback"))
    odd = encode((pack(calls.NoUnpickle(), nowhere), "the traceback"))
    lost = encode(("LookupError: y", "where"))
    source.on_batch(batch(0, 7, VALUE + pack({1: (2,)}, nowhere), RAISED + error))
    record = ErrorRecord(5, "lost", "WorkerLost", "it died")
    source.on_batch(batch(3, LOST + lost, RAISED + odd, None, errors=[record]))
    assert futures[0].result() == 7 and futures[1].result() == {1: (2,)}
    raised = futures[2].exception()
    assert isinstance(raised, ValueError) and "the traceback" in str(raised.__cause__)
    for future, text in ((futures[3], "LookupError: y"), (futures[4], "no way in")):
        with pytest.raises(Unpicklable, match=text):
            future.result()
    assert isinstance(futures[5].exception(), WorkerLost)


def test_a_failed_initializer_breaks_the_executor() -> None:
    broken: list[ExecutorBroken] = []
    source = CallSource(1, Blobs(), broken.append, None)
    future: Future[Any] = Future()
    source.add(Pending(future, b"", [], "f"))
    source.take(1, 100)
    source.on_batch(batch(0, BROKEN + encode(("LookupError: no model", "where"))))
    assert "no model" in str(broken[0]) and isinstance(future.exception(), ExecutorBroken)


def test_what_has_no_outcome_fails_at_the_end() -> None:
    source, futures = source_of([b"a", b"b", b"c"])
    source.take(1, 100)
    futures[2].cancel()
    assert source.on_end(RuntimeError("gone"))
    for future in futures[:2]:
        with pytest.raises(ExecutorBroken, match="gone"):
            future.result()
    assert futures[2].cancelled()
    assert not source.on_end(RuntimeError("gone")), "no call is left"


def test_a_call_that_comes_after_the_end_fails_at_once() -> None:
    blobs = Blobs()
    source = CallSource(1, blobs, never, None)
    number = blobs.put(memoryview(b"x" * 100))
    source.on_end(RuntimeError("gone"))
    blobs.close()
    future: Future[Any] = Future()
    source.add(Pending(future, b"", [number], "f"))
    with pytest.raises(ExecutorBroken, match="gone"):
        future.result(0)


def items_of(items: list[Any], *, single: bool = True) -> ItemSource:
    return ItemSource("f", b"\x80", items, Blobs(), never, None, single=single)


@pytest.mark.parametrize(
    ("items", "native"),
    [
        ([1, 2.5, None, True], True),
        ([1 << 64], False),
        (["a"], False),
        ([b"a"], False),
        ([(1,)], False),
    ],
)
def test_numbers_travel_as_they_are(items: list[Any], native: bool) -> None:
    piece = items_of(items).take(10, 1000)
    assert piece is not None
    assert (decode(piece.items) == items) is native


def test_items_are_taken_within_their_bytes() -> None:
    source = items_of(["a" * 30] * 3)
    counts = []
    while (piece := source.take(10, 100)) is not None:
        counts.append(piece.count)
    assert sum(counts) == 3 and len(counts) > 1 and not source.has_items


def test_an_item_that_cannot_be_pickled_raises_in_its_place() -> None:
    source = items_of([1, calls.NoPickle(), 3])
    pieces = []
    while (piece := source.take(10, 1000)) is not None:
        pieces.append(piece)
    assert [piece.count for piece in pieces] == [1, 1, 1] and source.total == 3
    refused = pieces[1].error
    assert refused is not None and refused.index == 1
    source.on_batch(batch(0, 1))
    source.on_batch(batch(1, None, errors=[refused]))
    left: list[bool] = []
    values = source.results(None, lambda step: left.append(True))
    assert next(values) == 1
    with pytest.raises(Exception, match="not this one"):
        next(values)
    assert left == [True]


def test_results_end_early() -> None:
    source = items_of([1, 2, 3])
    source.take(1, 100)
    source.stop()
    assert (source.total, source.has_items, source.remaining) == (1, False, 0)
    source.on_batch(batch(0, 1))
    source.on_end(None)
    values = source.results(None, lambda step: None)
    assert next(values) == 1
    with pytest.raises(CancelledError):
        next(values)
    with pytest.raises(TimeoutError):
        next(items_of([1]).results(0.0, lambda step: None))
    source = items_of([1])
    assert source.on_end(RuntimeError("gone"))
    values = source.results(None, lambda step: source.leave())
    with pytest.raises(ExecutorBroken, match="gone"):
        next(values)
    assert not source.on_end(RuntimeError("gone")), "its reader has left"
    assert not source.on_end(None)


def large(kept: Blobs) -> bytes:
    """Make a result with a large part, as a worker would."""

    def put(buffer: memoryview) -> int:
        return kept.take_in(write(buffer), buffer.nbytes)

    return VALUE + pack(np.ones(BLOB_BYTES, np.uint8), put)


@pytest.mark.parametrize("reads", [0, 1])
def test_large_results_that_nobody_reads_are_dropped(reads: int) -> None:
    """A reader that leaves stops the map; where nobody reads, it goes on."""
    kept = Blobs()
    source = ItemSource("f", b"\x80", [1, 2, 3, 4], kept, never, None, single=True)
    source.take(3, 100)
    source.on_batch(batch(0, large(kept), large(kept)))
    values = source.results(None, lambda step: step())
    for _ in range(reads):
        assert next(values).sum() == BLOB_BYTES
    del values
    assert source.has_items is (not reads)
    source.on_batch(batch(2, large(kept)))
    error = RAISED + encode((large(kept)[1:], "the traceback"))
    source.on_batch(batch(3, error, None, 7))
    assert not kept._results


def test_an_exception_keeps_no_other_values() -> None:
    source, (failed,) = source_of([b"a"])
    source.take(1, 1000)
    source.on_batch(batch(0, RAISED + encode((pack(ValueError("x"), nowhere), "the traceback"))))
    error = failed.exception(0)
    assert type(error) is ValueError and error.__traceback__ is None
    assert "the traceback" in str(error.__cause__)
