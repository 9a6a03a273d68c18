"""The engine without workers: what it refuses, and calls whose workers cannot start."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from jetmap.client.session import Session
from jetmap.errors import ExecutorBroken, WorkerStartFailed
from jetmap.executor.calls import Pending
from jetmap.executor.engine import Engine


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
    engine.submit(Pending(future, b"", []))
    with pytest.raises(ExecutorBroken, match=f"the workers cannot start: {error}"):
        future.result(20)
    engine.join()
    with pytest.raises(ExecutorBroken, match="cannot start"):
        engine.map("f", b"\x80", [1], single=True)


def test_calls_fail_when_the_engine_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: Engine) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(Engine, "_serve", fail)
    engine = Engine(1, pinned=False, calls=0)
    future: Future[Any] = Future()
    engine.submit(Pending(future, b"", []))
    with pytest.raises(ExecutorBroken, match="thread has ended"):
        future.result(20)
    engine.join()
    assert "internal error" in caplog.text
    with pytest.raises(ExecutorBroken):
        engine.check()
