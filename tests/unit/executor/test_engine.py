"""The engine without workers: what it refuses, and calls whose workers cannot start."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import Any

import pytest

from jetmap.client.session import Session
from jetmap.errors import ExecutorBroken, WorkerStartFailed
from jetmap.executor import engine as module
from jetmap.executor.calls import Pending
from jetmap.executor.engine import Engine
from waiting import PATIENCE


def test_an_engine_that_was_never_used_has_nothing_to_end() -> None:
    engine = Engine(1, pinned=False, calls=0)
    engine.close()
    engine.join()
    with pytest.raises(RuntimeError, match="after shutdown"):
        engine.check()
    assert engine.worker_pids == []


@pytest.mark.parametrize("error", [WorkerStartFailed("no memory"), RuntimeError("a bug")])
def test_calls_fail_when_the_workers_cannot_start(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_: Any, **__: Any) -> Session:
        raise error

    monkeypatch.setattr(Session, "open", fail)
    engine = Engine(1, pinned=False, calls=0)
    future: Future[Any] = Future()
    engine.submit(Pending(future, b"", [], "f"))
    with pytest.raises(ExecutorBroken, match=f"the workers cannot start: {error}"):
        future.result(PATIENCE)
    engine.join()
    with pytest.raises(ExecutorBroken, match="cannot start"):
        engine.map("f", b"\x80", [1], single=True)


@pytest.mark.parametrize("told", ["by a future", "by the next call", ""])
def test_calls_that_nobody_asks_for_are_not_lost_without_a_word(
    told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> Session:
        raise WorkerStartFailed("no memory")

    monkeypatch.setattr(Session, "open", fail)
    monkeypatch.setattr(module, "_is_exiting", False)
    engine = Engine(1, pinned=False, calls=0)
    future: Future[Any] = Future()
    engine.submit(Pending(future, b"", [], "f"))
    engine.join()
    if told:
        with pytest.raises(ExecutorBroken):
            future.result(0) if told == "by a future" else engine.check()
    module._finish()
    said = [record.getMessage() for record in caplog.records]
    expected = "an Executor has failed, and its calls with it: the workers cannot start: no memory"
    assert said == ([] if told else [expected])


@pytest.mark.parametrize("error", [LookupError("a bug"), SystemExit(3)])
def test_calls_fail_when_the_engine_does(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit may come from a future's callback."""

    async def fail(self: Engine) -> None:
        raise error

    monkeypatch.setattr(Engine, "_serve", fail)
    engine = Engine(1, pinned=False, calls=0)
    future: Future[Any] = Future()
    engine.submit(Pending(future, b"", [], "f"))
    with pytest.raises(ExecutorBroken, match="thread has ended"):
        future.result(PATIENCE)
    engine.join()
    assert "internal error" in caplog.text
    with pytest.raises(ExecutorBroken):
        engine.check()


@pytest.mark.parametrize(("workers", "threads"), [(1, "8"), (3, "2"), (8, ""), (20, "")])
def test_threads_of_numeric_libraries_share_the_cores(
    workers: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "choose_cores", lambda wanted: list(range(8)))
    for name in module.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    found = module._threads_each(workers)
    assert found.pop("MKL_NUM_THREADS") == "5"
    # A worker has one without being asked.
    assert set(found.values()) == ({threads} if threads else set())


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_end_of_a_program_finishes_its_calls_unless_it_was_interrupted(
    interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(1, pinned=False, calls=0)
    done: list[str] = []
    for step in ("close", "kill", "join"):
        monkeypatch.setattr(engine, step, lambda step=step: done.append(step))
    monkeypatch.setattr(module, "_engines", {engine})
    monkeypatch.setattr(module, "_is_exiting", False)
    last = KeyboardInterrupt if interrupted else ValueError
    monkeypatch.setattr(sys, "last_type", last, raising=False)
    module._finish()
    assert done == ["kill" if interrupted else "close", "join"]
