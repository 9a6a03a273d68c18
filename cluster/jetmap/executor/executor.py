"""``Executor``: a ``concurrent.futures.Executor`` whose calls run in jetmap's workers."""

from __future__ import annotations

import collections
import contextlib
import itertools
import multiprocessing
import operator
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor as _Executor
from concurrent.futures import Future
from multiprocessing.context import BaseContext
from time import monotonic
from typing import Any, NoReturn, ParamSpec, SupportsIndex, TypeVar, overload

import msgspec
import psutil

from jetmap import bounds
from jetmap.machine import choose_cores

from .calls import Pending
from .engine import Engine
from .packing import blobs_of, pack, pack_call
from .remote import RemoteCall

P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode


class Executor(_Executor):
    """Run calls in worker processes of its own, in the place of a ``ProcessPoolExecutor``.

    The workers start with the first call. A future resolves when its own call ends. A call that
    kills its worker fails alone, with an error that is a ``BrokenProcessPool``, and the executor
    goes on. Functions and classes of ``__main__``, lambdas and closures travel by value.

    Args:
        max_workers: Number of workers; None: one for each core, pinned to it.
        mp_context: Accepted for compatibility: workers are always spawned.
        initializer: Called in each worker before its first call.
        initargs: Arguments of ``initializer``.
        max_tasks_per_child: Calls after which a worker is replaced.

    Raises:
        ValueError: A number is out of bounds, or ``mp_context`` is "fork".
        TypeError: An argument has another type, or ``initargs`` cannot travel.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is not None:
            if not isinstance(max_workers, SupportsIndex):
                raise TypeError(f"max_workers must be a whole number, not {max_workers!r:.60}")
            max_workers = operator.index(max_workers)
            if max_workers <= 0:
                raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
            if max_workers > bounds.WORKERS.most:
                raise ValueError(
                    f"max_workers must be at most {bounds.WORKERS.most:,}, not {max_workers}"
                )
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError(f"max_tasks_per_child must be an integer: {max_tasks_per_child!r}")
            if max_tasks_per_child <= 0:
                raise ValueError(f"max_tasks_per_child must be >= 1, not {max_tasks_per_child}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r:.60}")
        if isinstance(initargs, str | bytes) or not isinstance(initargs, Iterable):
            raise TypeError(
                f"initargs must be a tuple of arguments, not {initargs!r:.60}; for one, write "
                "(value,)"
            )
        _check_context(mp_context)
        # Programs written for the standard library's pool read these two, and ``_processes``.
        self._max_workers = max_workers or len(choose_cores(None))
        self._mp_context = multiprocessing.get_context("spawn")
        self._engine = Engine(
            self._max_workers,
            pinned=max_workers is None,
            calls=max_tasks_per_child or 0,
        )
        if initializer is not None:
            try:
                packed = pack((initializer, initargs), self._engine.blobs.put)
            except Exception as error:
                _refuse(initargs, error)
            self._engine.initializer = packed
        # The engine holds no reference to this object: what was submitted is done without it.
        self._closing = weakref.finalize(self, self._engine.close)
        self._closing.atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule a call; return its future.

        The arguments are pickled now, so later changes to them do not matter.

        Raises:
            RuntimeError: The executor was shut down.
            ExecutorBroken: No worker can run calls any more.
        """
        future: Future[T] = Future()
        kept = self._engine.blobs
        blobs: list[int] = []
        try:
            function = pack(fn, kept.put)
            blobs += blobs_of(function)
            arguments = pack_call(args, kwargs, kept.put)
            blobs += blobs_of(arguments)
        except Exception as error:
            kept.release(blobs)
            self._engine.check()
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        try:
            data = _encode(RemoteCall(function, arguments))
            self._engine.submit(Pending(future, data, blobs, _name_of(fn)))
        except Exception:
            kept.release(blobs)
            raise
        return future

    @overload  # type: ignore[override]
    def map(
        self,
        fn: Callable[[A], T],
        first: Iterable[A],
        /,
        *,
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[[A, B], T],
        first: Iterable[A],
        second: Iterable[B],
        /,
        *,
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[[A, B, C], T],
        first: Iterable[A],
        second: Iterable[B],
        third: Iterable[C],
        /,
        *,
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        fourth: Iterable[Any],
        /,
        *more: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator of ``fn``'s values, in the order of the arguments.

        Args:
            fn: Called with an argument of each iterable.
            iterables: Read at once, up to the end of the shortest.
            timeout: Seconds from now after which the iterator raises TimeoutError.
            chunksize: Not needed: jetmap cuts the list by the time that calls take.
            buffersize: Calls that may be begun and not read; then iterables are read as needed.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else monotonic() + timeout
        if buffersize is not None:
            return self._map_lazily(fn, zip(*iterables, strict=False), deadline, buffersize)
        items: Sequence[Any]
        single = len(iterables) == 1
        items = list(iterables[0]) if single else list(zip(*iterables, strict=False))
        engine = self._engine
        source = engine.map(_name_of(fn), pack(fn, engine.blobs.put), items, single=single)
        return source.results(deadline, engine.post)

    def _map_lazily(
        self,
        fn: Callable[..., T],
        arguments: Iterator[tuple[Any, ...]],
        deadline: float | None,
        size: int,
    ) -> Iterator[T]:
        futures = collections.deque(
            self.submit(fn, *args) for args in itertools.islice(arguments, size)
        )

        def results() -> Iterator[T]:
            try:
                while futures:
                    future = futures.popleft()
                    value = [future.result(None if deadline is None else deadline - monotonic())]
                    del future
                    for args in itertools.islice(arguments, 1):
                        futures.append(self.submit(fn, *args))
                    yield value.pop()
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        # Ctrl-C does not reach the workers, and whoever pressed it does not want to wait for them.
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
            self.kill_workers()
        try:
            self.shutdown()
        except KeyboardInterrupt:  # Pressed while the end of the block waits for the calls.
            self.kill_workers()
            self.shutdown()
            raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and free the workers when all are done.

        Args:
            wait: Return when the workers are gone.
            cancel_futures: Cancel the calls that have not begun.
        """
        self._engine.close(cancel=cancel_futures)
        if wait:
            self._engine.join()

    def terminate_workers(self) -> None:
        """Cancel what has not begun; send SIGTERM to the workers, and kill them soon after."""
        self._engine.kill(signal.SIGTERM)

    def kill_workers(self) -> None:
        """Cancel what has not begun, and kill the workers."""
        self._engine.kill()

    @property
    def _processes(self) -> dict[int, psutil.Process]:
        """The workers that have run a call, by their process id."""
        found = {}
        for pid in self._engine.worker_pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[pid] = psutil.Process(pid)
        return found


def _check_context(context: BaseContext | str | None) -> None:
    if context is None:
        return
    if not isinstance(context, str | BaseContext):
        raise TypeError(
            f"mp_context must be a context of multiprocessing, not {context!r:.60}; leave it out"
        )
    name = context if isinstance(context, str) else context.get_start_method()
    if name == "fork":
        raise ValueError(
            "mp_context 'fork': jetmap's workers are spawned, so they do not inherit what this "
            "process has in memory; pass it as arguments, or load it in an initializer"
        )
    if name not in ("spawn", "forkserver"):
        raise ValueError(f"mp_context: unknown start method {name!r}")


def _refuse(initargs: tuple[Any, ...], error: Exception) -> NoReturn:
    """Raise TypeError for the initializer's argument that cannot be pickled, by its name."""
    for index, argument in enumerate(initargs):
        try:
            pack(argument, lambda buffer: 0)
        except Exception as reason:
            kind = f"{type(argument).__module__}.{type(argument).__qualname__}"
            raise TypeError(
                f"initargs[{index}], a {kind}, cannot travel to a worker: {reason}. Locks and "
                "queues of multiprocessing can only be inherited; use those of a "
                "multiprocessing.Manager"
            ) from reason
    raise TypeError(f"the initializer cannot travel to a worker: {error}") from error


def _name_of(fn: Callable[..., Any]) -> str:
    """Name a function, for the costs of its calls and for ``jetmap status``."""
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return f"{getattr(fn, '__module__', None) or 'builtins'}.{name}"
