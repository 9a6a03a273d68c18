"""An executor refuses at once, by name, what cannot work."""

from __future__ import annotations

import multiprocessing
import threading

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
