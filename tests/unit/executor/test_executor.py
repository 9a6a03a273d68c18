"""An executor refuses at once, by name, what cannot work."""

from __future__ import annotations

import functools
import multiprocessing
import threading

import numpy as np
import pytest

import calls
from jetmap import Executor


def test_what_cannot_work_is_refused_by_name() -> None:
    context = multiprocessing.get_context("spawn")
    for wrong in ("fork", multiprocessing.get_context("fork")):
        with pytest.raises(ValueError, match="'fork': jetmap's workers are spawned"):
            Executor(mp_context=wrong)
    Executor(mp_context=context)
    for argument, name in (
        (context.Lock(), "Lock"),
        (context.Queue(), "Queue"),
        (threading.Lock(), "lock"),
    ):
        with pytest.raises(TypeError, match=rf"initargs\[1\], a .*{name}, cannot travel"):
            Executor(initializer=calls.set_state, initargs=(1, argument))
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        Executor(0)
    with pytest.raises(ValueError, match="max_workers must be at most 4,096"):
        Executor(10**6)
    with pytest.raises(TypeError, match="max_workers must be a whole number, not '4'"):
        Executor("4")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="mp_context must be a context"):
        Executor(mp_context=5)  # type: ignore[arg-type]
    for initargs in (5, "ab"):
        with pytest.raises(TypeError, match="initargs must be a tuple"):
            Executor(initializer=calls.set_state, initargs=initargs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_tasks_per_child"):
        Executor(max_tasks_per_child=0)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        Executor(initializer=1)  # type: ignore[arg-type]


def test_ctrl_c_in_a_block_ends_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(Executor, "kill_workers", lambda self: done.append("killed"))
    monkeypatch.setattr(Executor, "shutdown", lambda self: done.append("shut down"))
    for error, steps in ((KeyboardInterrupt, ["killed", "shut down"]), (ValueError, ["shut down"])):
        done.clear()
        with pytest.raises(error), Executor(1):
            raise error
        assert done == steps


def test_ctrl_c_while_a_block_ends_does_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def shutdown(self: Executor) -> None:
        done.append("waits")
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Executor, "kill_workers", lambda self: done.append("killed"))
    monkeypatch.setattr(Executor, "shutdown", shutdown)
    with pytest.raises(KeyboardInterrupt), Executor(1):
        pass
    assert done == ["waits", "killed", "waits"]


def test_a_number_of_numpy_is_a_number_of_workers() -> None:
    executor = Executor(np.int64(3))
    assert executor._max_workers == 3 and type(executor._max_workers) is int


def test_what_was_packed_for_a_refused_call_is_dropped() -> None:
    executor = Executor(1)
    array = np.ones(200_000, np.uint8)
    failed = executor.submit(functools.partial(calls.give, array), calls.NoPickle())
    assert failed.exception() is not None
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(calls.give, array)
    kept = executor._engine.blobs
    assert not any(blob.users for blob in kept._blobs.values())
    kept.close()
