"""The worker's side: calls run, and what goes wrong says where."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

import calls
from jetmap.executor import remote
from jetmap.executor.packing import pack, pack_call, unpack
from jetmap.executor.remote import Context, Plain, RemoteCall, Shared

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def nowhere(buffer: Any) -> Any:
    raise AssertionError("no blobs here")


class FakeLink:
    def __init__(self, path: str) -> None:
        self.put = self.get = nowhere

    def streams(self) -> tuple[int, int]:
        return 1, 2

    def reports(self) -> None:
        return None


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process be the worker of an executor, and forget it afterwards."""
    monkeypatch.setattr(remote, "WorkerLink", FakeLink)
    monkeypatch.setattr(remote, "_print_to", lambda stdout, stderr: None)
    monkeypatch.setattr(remote, "use_tracker_of", lambda path: None)
    process = multiprocessing.current_process()
    name = process.name
    yield
    process.name = name
    remote._runs.clear()
    remote._executors.clear()


def context(function: bytes = b"", **shared: Any) -> bytes:
    options = {"executor": "x", "link": "", "authkey": b"key", "initializer": b"", "calls": 0}
    return encode(Context(Shared(**(options | shared)), function))


def submitted(f: Any, *args: Any, **kwargs: Any) -> Plain:
    call = RemoteCall(pack(f, nowhere), pack_call(args, kwargs, nowhere))
    return remote.call(encode(call), context=context())


def value_of(result: Plain) -> Any:
    assert isinstance(result, bytes) and result[:1] == remote.VALUE
    return unpack(result[1:], nowhere)


def test_plain_values_travel_as_they_are() -> None:
    for value in (None, True, 1, 2.5):
        assert submitted(calls.give, value) == value
    for large in (1 << 64, "x", b"y", (1,)):
        assert value_of(submitted(calls.give, large)) == large


def test_items_of_a_map() -> None:
    one = context(pack(calls.add, nowhere))
    bind: Any = remote.call_of_map.jetmap_bound  # type: ignore[attr-defined]
    assert bind(context=one) is None, "the first call begins the map, within an item"
    assert remote.call_of_map(3, context=one) == 3 == bind(context=one)(3)
    assert remote.call_of_map(pack_call((3, 4), {}, nowhere), context=one) == 7


def test_a_function_is_kept_unless_a_call_may_change_it() -> None:
    count = [0]

    def counts() -> int:
        count[0] += 1
        return count[0]

    assert [submitted(counts) for _ in range(2)] == [1, 1]
    assert [submitted(calls.Adder(1), 1) for _ in range(2)] == [3, 3]
    submitted(calls.add, 1)
    (kept,) = remote._executors["x"]._functions.values()
    assert kept is calls.add


@pytest.mark.parametrize(
    ("f", "args", "kept"),
    [
        (abs, (-1,), True),
        (int, ("7",), True),
        (str.upper, ("a",), True),
        (partial(calls.add, b=2), (1,), True),
        (partial(partial(divmod, 7)), (2,), True),
        (partial(calls.give, []), (), False),
        (partial(calls.Adder(1)), (1,), False),
        (calls.Point(1).moved, (1,), False),
        ([3].count, (3,), False),
    ],
)
def test_what_no_call_can_change_is_loaded_once(f: Any, args: Any, kept: bool) -> None:
    for _ in range(2):
        result = submitted(f, *args)
        assert (value_of(result) if isinstance(result, bytes) else result) == f(*args)
    assert bool(remote._executors["x"]._functions) is kept


def test_workers_have_the_callers_variables_and_log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel("ERROR")
        options = {"variables": {"OMP_NUM_THREADS": "4"}, "log_level": "warning"}
        ready = context(pack(os.getenv, nowhere), **options)
        found = remote.call_of_map(pack_call(("OMP_NUM_THREADS",), {}, nowhere), context=ready)
        assert value_of(found) == "4" and root.level == logging.WARNING
    finally:
        root.setLevel(before)


def test_exceptions_come_with_their_traceback() -> None:
    result = submitted(calls.raise_value_error, 7)
    assert isinstance(result, bytes) and result[:1] == remote.RAISED
    packed, text = decode(result[1:])
    assert repr(unpack(packed, nowhere)) == "ValueError('no 7')"
    assert "# the line of the error" in text and "remote.py" not in text


def test_a_result_that_cannot_be_pickled_raises_why() -> None:
    result = submitted(calls.no_pickle)
    assert isinstance(result, bytes) and result[:1] == remote.RAISED
    assert "not this one" in str(unpack(decode(result[1:])[0], nowhere))


def test_a_call_that_cannot_be_unpickled() -> None:
    result = submitted(calls.give, calls.NoUnpickle())
    assert isinstance(result, bytes) and result[:1] == remote.LOST
    assert decode(result[1:])[0] == "UnpicklingError: no way in"


@pytest.mark.parametrize("into", ["text", "buffer", "another stream", "nothing"])
def test_what_a_call_prints_is_flushed_when_it_ends(
    into: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    try:
        out, err = remote._text(writer), remote._text(writer)
        monkeypatch.setattr(remote, "_streams", (out, err))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        flushed = 0

        def flush() -> None:
            nonlocal flushed
            flushed += 1
            real()

        real = remote._flush
        monkeypatch.setattr(remote, "_flush", flush)

        def printing() -> None:
            if into == "text":
                print("begun …", end="")
                sys.stderr.write("!")
            elif into == "buffer":
                sys.stdout.buffer.write("begun …!".encode())
            elif into == "another stream":
                monkeypatch.setattr(sys, "stdout", open(writer, "w", closefd=False))  # noqa: SIM115
                print("begun …!", end="")

        run = remote._Run.__new__(remote._Run)
        run._executor = remote._Executor(Shared("x", "", b"key", b"", 0))
        run._function, run._map = b"f", lambda item: printing()
        for _ in range(2):
            assert run.call(1) is None
            if into != "nothing":
                assert os.read(reader, 100).decode() == "begun …!"
        assert flushed == (0 if into == "nothing" else 2)
    finally:
        os.close(reader)
        os.close(writer)


def test_the_initializer_runs_before_the_first_call() -> None:
    initializer = pack((calls.set_state, (5,)), nowhere)
    ready = context(pack(calls.get_state_of, nowhere), initializer=initializer)
    assert remote.call_of_map(0, context=ready) == 5
    calls.set_state(None)
    failing = context(executor="y", initializer=pack((calls.fail_to_start, ()), nowhere))
    for _ in range(2):
        result = remote.call(b"", context=failing)
        assert isinstance(result, bytes) and result[:1] == remote.BROKEN
        assert decode(result[1:])[0] == "LookupError: 'no model'" or b"no model" in result


def test_a_worker_is_spent_after_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    from jetmap.worker import main

    monkeypatch.setattr(main, "is_spent", False)
    twice = context(pack(calls.add, nowhere), executor="z", calls=2)
    remote.call_of_map(1, context=twice)
    assert not main.is_spent
    remote.call_of_map(1, context=twice)
    assert main.is_spent


def test_a_worker_is_not_the_main_process() -> None:
    assert value_of(submitted(calls.process_name)) == f"ExecutorProcess-{os.getpid()}"
