"""The backend of joblib: its workers, their threads, and loops inside them."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import joblib
import pytest
from joblib.parallel import FallbackToBackend

import calls
import jetmap.joblib as module
from jetmap.joblib import JetmapBackend


class FakeExecutor:
    made: list[FakeExecutor] = []

    def __init__(self, workers: int, **options: Any) -> None:
        self.workers = workers
        self.environment: dict[str, str] = options["initargs"][0]
        self.initializer = options["initargs"][1]
        self.ends: list[str] = []
        self.made.append(self)

    def kill_workers(self) -> None:
        self.ends.append("killed")

    def shutdown(self, wait: bool = True) -> None:
        self.ends.append("shut down")


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeExecutor]:
    """The executors that backends make; none of them has workers."""
    monkeypatch.setattr(FakeExecutor, "made", [])
    monkeypatch.setattr(module, "Executor", FakeExecutor)
    monkeypatch.setattr(module, "_idle", {})
    monkeypatch.setattr(module, "cpu_count", lambda: 8)
    monkeypatch.setattr(module, "IDLE_SECONDS", 1000.0)
    for name in JetmapBackend.MAX_NUM_THREADS_VARS:
        monkeypatch.delenv(name, raising=False)
    return FakeExecutor.made


def test_the_number_of_workers() -> None:
    backend = JetmapBackend(nesting_level=0)
    counts = [backend.effective_n_jobs(n) for n in (None, 1, 3, -1, -2, -20)]
    assert counts == [1, 1, 3, 8, 7, 1]
    with pytest.raises(ValueError, match="n_jobs == 0"):
        backend.effective_n_jobs(0)
    with pytest.raises(FallbackToBackend):
        backend.configure(n_jobs=1)
    with joblib.parallel_config("jetmap"):
        assert joblib.Parallel()._effective_n_jobs() == 8


def test_a_worker_has_no_workers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from jetmap.worker import main

    monkeypatch.setattr(main, "in_worker", True)
    assert JetmapBackend(nesting_level=0).effective_n_jobs(-1) == 1


def test_workers_wait_for_the_next_loop(made: list[FakeExecutor]) -> None:
    first, second = JetmapBackend(nesting_level=0), JetmapBackend(nesting_level=0)
    for backend in (first, second):
        assert backend.configure(n_jobs=2, max_nbytes="1M", temp_folder=None) == 2
        backend.terminate()
    assert [executor.workers for executor in made] == [2]
    (waiting,) = module._idle.values()
    first.configure(n_jobs=2)
    waiting.end_if_idle()
    assert made[0].ends == []  # A loop uses them.
    first.terminate()
    waiting.end_if_idle()
    assert made[0].ends == ["shut down"] and not module._idle


def test_loops_at_the_same_time_do_not_share_workers(made: list[FakeExecutor]) -> None:
    first, second = JetmapBackend(nesting_level=0), JetmapBackend(nesting_level=0)
    first.configure(n_jobs=2)
    second.configure(n_jobs=2)
    first.terminate()
    second.terminate()
    assert [executor.ends for executor in made] == [[], ["shut down"]]


def test_an_abort_ends_the_workers(made: list[FakeExecutor]) -> None:
    backend = JetmapBackend(nesting_level=0)
    backend.configure(n_jobs=2, parallel=SimpleNamespace(n_jobs=2))
    backend.abort_everything(ensure_ready=False)
    assert made[0].ends == ["killed"] and not module._idle
    with pytest.raises(RuntimeError, match="given back"):
        backend.submit(lambda: 1)
    backend.abort_everything(ensure_ready=True)
    assert len(made) == 2
    backend.terminate()


def test_threads_of_numeric_libraries(
    made: list[FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    JetmapBackend(nesting_level=0).configure(n_jobs=2)
    JetmapBackend(nesting_level=0, inner_max_num_threads=3).configure(n_jobs=2)
    found = [(e.environment["OMP_NUM_THREADS"], e.environment["MKL_NUM_THREADS"]) for e in made]
    assert found == [("4", "5"), ("3", "3")]


def test_an_initializer_has_workers_of_its_own(made: list[FakeExecutor]) -> None:
    JetmapBackend(nesting_level=0).configure(n_jobs=2)
    initialized = JetmapBackend(nesting_level=0, initializer=calls.set_state, initargs=(1,))
    initialized.configure(n_jobs=2)
    assert made[0].initializer == b""
    assert pickle.loads(made[1].initializer) == (calls.set_state, (1,))
    # A call with a loop of its own carries its backend to the worker.
    assert pickle.loads(pickle.dumps(initialized))._workers is None
