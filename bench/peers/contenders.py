"""The contenders: each runs a function over a list on all cores, as its documentation advises."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

Function = Callable[[Any], Any]
# Seconds of timing single items, and the number of items below which they go on.
LATENCY_SECONDS = 5.0
FEWEST = 60


class Contender:
    """One way to run maps; ``start`` to ``stop`` in one process."""

    needs: ClassVar[str] = ""  # The package that must be installed.

    def __init__(self, cores: int) -> None:
        self.cores = cores

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None: ...

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        raise NotImplementedError

    def tune(self, f: Function, items: Sequence[Any]) -> None:
        """Choose by hand what a careful user would."""

    def many(self, f: Function, lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Run several maps at once."""
        with ThreadPoolExecutor(len(lists)) as threads:
            return list(threads.map(lambda items: self.map(f, items), lists))

    def one(self, f: Function, item: Any) -> Any:
        return self.map(f, [item])[0]

    def latencies(self, f: Function, items: Sequence[Any]) -> list[float]:
        """Time single items, one after the other, in seconds; fewer of them if they are slow."""
        times = []
        start = time.perf_counter()
        for item in items:
            began = time.perf_counter()
            self.one(f, item)
            times.append(time.perf_counter() - began)
            if len(times) >= FEWEST and time.perf_counter() - start > LATENCY_SECONDS:
                break
        return times


class Executor(Contender):
    """``ProcessPoolExecutor`` with the fastest of a few chunk sizes."""

    def start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(self.cores, mp_context=context)
        self._chunk = 1

    def stop(self) -> None:
        self._pool.shutdown()

    def tune(self, f: Function, items: Sequence[Any]) -> None:
        sizes = {max(1, len(items) // (self.cores * parts)) for parts in (1, 4, 16, 64)}
        timed = []
        for size in sorted(sizes):
            self._chunk = size
            began = time.perf_counter()
            self.map(f, items)
            timed.append((time.perf_counter() - began, size))
        self._chunk = min(timed)[1]

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        return list(self._pool.map(f, items, chunksize=self._chunk))

    def one(self, f: Function, item: Any) -> Any:
        return self._pool.submit(f, item).result()


class Pool(Contender):
    """``multiprocessing.Pool.map``, which cuts four chunks a core."""

    def start(self) -> None:
        self._pool = multiprocessing.get_context("fork").Pool(self.cores)

    def stop(self) -> None:
        self._pool.terminate()

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        return self._pool.map(f, items)


class Mpire(Contender):
    needs = "mpire"

    def start(self) -> None:
        from mpire import WorkerPool

        self._pool = WorkerPool(n_jobs=self.cores, start_method="fork", keep_alive=True)

    def stop(self) -> None:
        self._pool.terminate()

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        return list(self._pool.map(f, items))

    def many(self, f: Function, lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return [self.map(f, items) for items in lists]  # One map at a time is all it allows.


class Joblib(Contender):
    needs = "joblib"

    def start(self) -> None:
        import joblib

        self._delayed = joblib.delayed
        # Else it may fill /dev/shm.
        self._directory = tempfile.TemporaryDirectory(prefix="bench-joblib-")
        self._parallel = joblib.Parallel(n_jobs=self.cores, temp_folder=self._directory.name)

    def stop(self) -> None:
        self._directory.cleanup()

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        return list(self._parallel(self._delayed(f)(item) for item in items))

    def many(self, f: Function, lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return [self.map(f, items) for items in lists]


class Ray(Contender):
    needs = "ray"

    def start(self) -> None:
        import ray
        from ray.util.multiprocessing import Pool as RayPool

        self._ray = ray
        ray.init(num_cpus=self.cores, include_dashboard=False, log_to_driver=False)
        self._pool = RayPool(self.cores)

    def stop(self) -> None:
        self._ray.shutdown()

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        return list(self._pool.map(f, items))


class Dask(Contender):
    needs = "distributed"

    def start(self) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(
            n_workers=self.cores, threads_per_worker=1, dashboard_address=None
        )
        self._client = Client(self._cluster)

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        size = max(1, len(items) // (16 * self.cores))
        cut = [list(items[start : start + size]) for start in range(0, len(items), size)]
        futures = self._client.map(_Each(f), cut, pure=False)
        return [value for values in self._client.gather(futures) for value in values]


class _Each:
    """A function over a chunk."""

    def __init__(self, f: Function) -> None:
        self._f = f

    def __call__(self, items: list[Any]) -> list[Any]:
        return [self._f(item) for item in items]


class Celery(Contender):
    """Celery with Redis: a group of chunks, 16 for each core."""

    needs = "celery"

    def start(self) -> None:
        if shutil.which("redis-server") is None:
            raise RuntimeError("redis-server is not installed")
        from bench.servers import free_port

        from . import celery_app

        self._directory = tempfile.mkdtemp(prefix="bench-celery-")
        port = free_port()
        os.environ["BENCH_REDIS"] = f"redis://127.0.0.1:{port}/0"
        os.environ["C_FORCE_ROOT"] = "1"  # Its workers refuse pickles where root runs them.
        server = ["redis-server", "--port", str(port), "--save", "", "--dir", self._directory]
        server += ["--set-proc-title", "no"]  # A title overwrites the mark of its environment.
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._redis = subprocess.Popen([*server, "--bind", "127.0.0.1"], **quiet)
        worker = ["-m", "celery", "-A", "bench.peers.celery_app", "worker"]
        options = ["--concurrency", str(self.cores), "--prefetch-multiplier", "1", "-l", "error"]
        self._worker = subprocess.Popen([sys.executable, *worker, *options], **quiet)
        self._app = celery_app.connect(os.environ["BENCH_REDIS"])
        celery_app.each.apply_async(("nothing", [1])).get(timeout=60)

    def stop(self) -> None:
        for process in (self._worker, self._redis):
            process.terminate()
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        from celery import group

        from .celery_app import each

        size = max(1, len(items) // (16 * self.cores))
        cut = [list(items[start : start + size]) for start in range(0, len(items), size)]
        done = group(each.s(f.__name__, chunk) for chunk in cut).apply_async().get(timeout=300)
        return [value for values in done for value in values]

    def one(self, f: Function, item: Any) -> Any:
        from .celery_app import each

        return each.delay(f.__name__, [item]).get(timeout=60)[0]


class Jetmap(Contender):
    """An embedded ``Cluster`` in an event loop that runs all the time, as an application's does."""

    def start(self) -> None:
        from jetmap import Cluster

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._cluster = self._run(Cluster.start(tasks=["bench.tasks"], cores=self.cores))

    def stop(self) -> None:
        self._run(self._cluster.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        return self._run(self._cluster.map(f, items))

    def many(self, f: Function, lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
        async def gather() -> list[list[Any]]:
            return await asyncio.gather(*[self._cluster.map(f, items) for items in lists])

        return self._run(gather())

    def latencies(self, f: Function, items: Sequence[Any]) -> list[float]:
        async def timed() -> list[float]:
            times = []
            for item in items:
                began = time.perf_counter()
                await self._cluster.map(f, [item])
                times.append(time.perf_counter() - began)
            return times

        return self._run(timed())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


CONTENDERS: dict[str, type[Contender]] = {
    "executor": Executor,
    "pool": Pool,
    "mpire": Mpire,
    "joblib": Joblib,
    "ray": Ray,
    "dask": Dask,
    "celery": Celery,
    "jetmap": Jetmap,
}

# Whole scripts, for the row of cold starts: each prints the sum of a map of three items.
_COLD = """\
from bench.peers.contenders import CONTENDERS
def double(n):
    return 2 * n
if __name__ == "__main__":
    contender = CONTENDERS["{name}"](2)
    contender.start()
    print(sum(contender.map(double, [1, 2, 3])))
    contender.stop()
"""


def cold(name: str) -> float:
    """Time a script from nothing to its end, in seconds."""
    if name == "celery":
        raise RuntimeError("its worker is started by hand, before any script")
    from bench.cold import SCRIPT

    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "script.py"
        text = SCRIPT if name == "jetmap" else _COLD.format(name=name)
        script.write_text(text, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, timeout=120
        )
        took = time.perf_counter() - began
        if done.stdout.split()[-1:] != [b"12"]:
            raise RuntimeError(done.stderr.decode()[-500:])
        return took
