"""Results of calls: loaded here, raised here, or the error that says why they cannot be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

import calls
from jetmap.errors import ExecutorBroken, Unpicklable
from jetmap.executor.blobs import Blobs
from jetmap.executor.packing import pack
from jetmap.executor.remote import BROKEN, LOST, RAISED, VALUE
from jetmap.executor.results import ResultLoader, broken_by

encode = msgspec.msgpack.encode


def nowhere(buffer: memoryview) -> int:
    raise AssertionError("no blobs here")


def loader(broken: list[ExecutorBroken] | None = None) -> ResultLoader:
    return ResultLoader(Blobs(), [].append if broken is None else broken.append)


def test_values_are_loaded() -> None:
    assert loader().load(7) == 7
    assert loader().load(VALUE + pack({1: (2,)}, nowhere)) == {1: (2,)}


def test_an_exception_has_its_traceback_in_the_worker_as_its_cause() -> None:
    raised = RAISED + encode((pack(ValueError("x"), nowhere), "the traceback"))
    with pytest.raises(ValueError, match="x") as caught:
        loader().load(raised)
    assert "the traceback" in str(caught.value.__cause__)


def test_what_cannot_be_unpickled_is_said_with_the_place() -> None:
    odd = RAISED + encode((pack(calls.NoUnpickle(), nowhere), "the traceback"))
    with pytest.raises(Unpicklable, match="the exception of the call could not be unpickled here"):
        loader().load(odd)
    with pytest.raises(Unpicklable, match="in a worker: LookupError: y"):
        loader().load(LOST + encode(("LookupError: y", "where")))


def test_a_failed_initializer_is_reported_and_raised() -> None:
    broken: list[ExecutorBroken] = []
    failed = BROKEN + encode(("LookupError: no model", "where"))
    results = loader(broken)
    results.check([1, VALUE + pack(2, nowhere)])
    assert broken == []
    results.check([1, failed, failed])
    assert len(broken) == 1 and "no model" in str(broken[0])
    with pytest.raises(ExecutorBroken, match="no model"):
        results.load(failed)


def test_the_end_of_a_map_breaks_its_calls_once() -> None:
    error = RuntimeError("gone")
    broken = broken_by(error)
    assert "gone" in str(broken) and broken.__cause__ is error
    assert broken_by(broken) is broken


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_whatever_unpickling_raises_is_its_own_futures(name: str) -> None:
    packed = VALUE + pack(calls.RaisesWhenLoaded(name), nowhere)
    results = loader()
    with ThreadPoolExecutor(1) as engine, pytest.raises(Unpicklable, match=name):
        engine.submit(results.load, packed).result()


def test_ctrl_c_while_a_result_is_loaded_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt):
        loader().load(VALUE + pack(calls.RaisesWhenLoaded("KeyboardInterrupt"), nowhere))
