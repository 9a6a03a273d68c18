"""joblib's parallel loops in jetmap's workers: scikit-learn's ``n_jobs``, and ``joblib.Parallel``.

Import this module, then use its backend by name::

    import joblib
    import jetmap.joblib

    with joblib.parallel_config("jetmap", n_jobs=-1):
        GridSearchCV(...).fit(X, y)
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from joblib import cpu_count, register_parallel_backend
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from jetmap.executor.executor import Executor
from jetmap.executor.packing import packed_whole
from jetmap.executor.remote import start_in

__all__ = ["JetmapBackend"]

IDLE_SECONDS = 300.0  # Seconds that workers wait for the next loop.


class JetmapBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """A backend of joblib whose workers are those of an ``Executor``.

    Each loop has workers of its own; they wait for the next one that wants the same. Inside a
    worker, ``n_jobs`` is 1 unless a loop there names a number, of threads.

    Args:
        nesting_level: Set by joblib.
        inner_max_num_threads: Threads that numeric libraries may use in each worker; None: the
            cores divided by the workers.
        initializer: Called in each worker before its first call.
        initargs: Arguments of ``initializer``.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **unused: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._initializer = initializer
        self._initargs = initargs
        self._workers: _Workers | None = None
        self.parallel: Any = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of workers that ``n_jobs`` means; negative: that many fewer cores."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or _in_worker():
            return 1
        return n_jobs if n_jobs > 0 else max(int(cpu_count()) + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **unused: Any,
    ) -> int:
        """Take workers for a loop. What concerns memory maps has no meaning here."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if initializer is not None:
            self._initializer, self._initargs = initializer, initargs
        self._release()
        packed = b""
        if self._initializer is not None:
            packed = packed_whole((self._initializer, self._initargs))
        self._workers = _take(count, self._environment(count), packed)
        self.parallel = parallel
        return count

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None
    ) -> Future[Any]:
        """Schedule a batch of calls; joblib 1.5 and later."""
        if self._workers is None:
            raise RuntimeError("the workers of this loop were given back")
        future = self._workers.executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # Until joblib 1.4.

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the result of a batch, in the callback of its future."""
        return out.result()

    def terminate(self) -> None:
        """Give the workers back, for the next loop."""
        self._release()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the workers with all that they compute."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.executor.kill_workers()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def _environment(self, count: int) -> dict[str, str]:
        """Return the variables that say how many threads libraries, and loops, use in a worker."""
        limit = self.inner_max_num_threads
        share = str(max(int(cpu_count()) // count, 1))
        variables = {
            name: os.environ.get(name, share) if limit is None else str(limit)
            for name in self.MAX_NUM_THREADS_VARS
        }
        return variables | {"LOKY_MAX_CPU_COUNT": "1"}  # What n_jobs=-1 means in a worker.

    def _release(self) -> None:
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.release()

    def __getstate__(self) -> dict[str, Any]:
        # Calls that have loops of their own carry their backend to the worker.
        return self.__dict__ | {"_workers": None, "parallel": None}


class _Workers:
    """An executor that one loop uses, or that waits for the next one."""

    def __init__(self, key: Hashable, executor: Executor) -> None:
        self.executor = executor
        self._key = key
        self._timer: threading.Timer | None = None

    def wake(self) -> None:
        """Use them from now on."""
        if self._timer is not None:
            self._timer.cancel()

    def release(self) -> None:
        """Let them wait for the next loop, unless others like them do so already."""
        with _lock:
            is_kept = _idle.setdefault(self._key, self) is self
            if is_kept:
                self._timer = threading.Timer(IDLE_SECONDS, self.end_if_idle)
                self._timer.daemon = True
                self._timer.start()
        if not is_kept:
            self.executor.shutdown(wait=False)

    def end_if_idle(self) -> None:
        """End them unless a loop uses them."""
        with _lock:
            if _idle.get(self._key) is not self:
                return
            del _idle[self._key]
        self.wake()
        self.executor.shutdown(wait=False)


_lock = threading.Lock()
_idle: dict[Hashable, _Workers] = {}


def _take(count: int, environment: dict[str, str], initializer: bytes) -> _Workers:
    """Return workers that wait, or start some."""
    key: Hashable = (count, *environment.items(), initializer, os.getpid())
    with _lock:
        workers = _idle.pop(key, None)
    if workers is not None:
        workers.wake()
        return workers
    # The variables come first: the initializer may import a library that reads them.
    return _Workers(key, Executor(count, initializer=start_in, initargs=(environment, initializer)))


def _in_worker() -> bool:
    process = sys.modules.get("jetmap.worker.main")
    return process is not None and bool(process.in_worker)


register_parallel_backend("jetmap", JetmapBackend)
