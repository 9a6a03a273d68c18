"""The cluster for code that is not async: ``def`` endpoints, threads, scripts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, Self, TypeVar, overload

from jetmap.dispatch.outcomes import Outcome
from jetmap.dispatch.roster import FunctionStatus
from jetmap.errors import ClusterClosed, ItemError
from jetmap.functions.advice import MISSING, START, check_call, check_not_async, refusing
from jetmap.wire.messages import Presence

from .call import Call
from .cluster import FORKED, MAP_OPTIONS, STREAM_OPTIONS, Cluster, refuse_in_worker
from .owner import process_id
from .stream import Stream
from .submit import SUBMIT_OPTIONS, Pieces, abort
from .sync_job import SyncJob

X = TypeVar("X")
Y = TypeVar("Y")
T = TypeVar("T")


class SyncCluster:
    """A cluster's methods, blocking. Any thread may call them, but not the event loop's own.

    ``with Cluster().sync as cluster:`` starts it in a thread of its own; of a cluster that is
    started already, ``cluster.sync`` uses its event loop.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._thread: threading.Thread | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        refuse_in_worker(starting=True)
        if self._cluster.is_started:
            raise ClusterClosed("this cluster is started already: use cluster.sync as it is")
        loop = asyncio.new_event_loop()
        self._own_loop = loop
        self._thread = threading.Thread(target=_run, args=(loop,), name="jetmap", daemon=True)
        self._thread.start()
        try:
            self._wait(self._cluster._start())
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    if not TYPE_CHECKING:  # Checkers reject these by themselves.
        __aenter__ = __aexit__ = refusing(f"cluster.sync is for code that is not async: {START}")

    def close(self) -> None:
        """Ends what ``with`` started. Twice is harmless."""
        if self._own_loop is None:
            return
        if self._cluster.is_foreign:
            # Loop and thread are the parent process's, and so is the cluster.
            self._own_loop = self._thread = None
        else:
            try:
                self._wait(self._cluster.aclose())
            finally:
                self._end_thread()

    @overload
    def map(
        self,
        f: Callable[[X], Y],
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[Y]: ...
    @overload
    def map(
        self,
        f: Callable[Concatenate[X, ...], Y],
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[Y]: ...
    @overload
    def map(
        self,
        f: Callable[[X], Y],
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool,
    ) -> list[Y | ItemError]: ...
    @overload
    def map(
        self,
        f: Callable[Concatenate[X, ...], Y],
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool,
    ) -> list[Y | ItemError]: ...
    @overload
    def map(
        self,
        f: str,
        items: Iterable[Any],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]: ...
    def map(
        self,
        f: Callable[..., Any] | str,
        items: Iterable[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool = False,
        **unknown: Any,
    ) -> list[Any]:
        """As ``Cluster.map``."""
        check_call(self, "map", f, items, more, unknown, MAP_OPTIONS)
        check_not_async(items)
        if not isinstance(items, Sequence):
            items = list(islice(items, self._cluster.settings.limits.max_list + 1))

        async def run() -> list[Any]:
            return await self._cluster.map(
                f, items, kwargs=kwargs, timeout=timeout, return_exceptions=return_exceptions
            )

        return self._wait(run())

    @overload
    def stream(
        self,
        f: Callable[[X], Y],
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
    ) -> SyncStream[X, Y]: ...
    @overload
    def stream(
        self,
        f: Callable[Concatenate[X, ...], Y],
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
    ) -> SyncStream[X, Y]: ...
    @overload
    def stream(
        self,
        f: str,
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
    ) -> SyncStream[X, Any]: ...
    def stream(
        self,
        f: Callable[..., Any] | str,
        items: Iterable[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
        **unknown: Any,
    ) -> SyncStream[Any, Any]:
        """As ``Cluster.stream``: an iterator and a context manager. ``items`` is taken in the
        event loop's thread: one that blocks delays every map of this cluster."""
        check_call(self, "stream", f, items, more, unknown, STREAM_OPTIONS)
        check_not_async(items)

        async def start() -> Stream[Any, Any]:
            return self._cluster.stream(f, items, kwargs=kwargs, timeout=timeout, ordered=ordered)

        return SyncStream(self._wait, self._wait(start()))

    @overload
    def submit(
        self,
        f: Callable[[X], Y],
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> SyncJob[X, Y]: ...
    @overload
    def submit(
        self,
        f: Callable[Concatenate[X, ...], Y],
        items: Iterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> SyncJob[X, Y]: ...
    @overload
    def submit(
        self,
        f: str,
        items: Iterable[Any],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> SyncJob[Any, Any]: ...
    def submit(
        self,
        f: Callable[..., Any] | str,
        items: Iterable[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
        **unknown: Any,
    ) -> SyncJob[Any, Any]:
        """As ``Cluster.submit``; ``items`` is taken in this thread."""
        check_call(self, "submit", f, items, more, unknown, SUBMIT_OPTIONS)
        check_not_async(items)
        cluster = self._cluster
        self._wait(cluster.announced(f))
        call = Call.of(f, kwargs, info=cluster.info)
        upload = self._wait(cluster.begin(call, ttl=ttl, timeout=timeout, key=key))
        try:
            source = call.source(items, keep=False, max_item=cluster.max_item)
            for elements in Pieces(source, cluster.max_item):
                self._wait(upload.put(elements))
            record = self._wait(upload.commit())
        except BaseException:
            self._wait(abort(upload))
            raise
        return SyncJob(self._wait, cluster.job_of(record.id, call))

    @overload
    def job(self, id: str, f: Callable[..., Y]) -> SyncJob[Any, Y]: ...
    @overload
    def job(self, id: str, f: str | None = None) -> SyncJob[Any, Any]: ...
    def job(self, id: str, f: Callable[..., Any] | str | None = None) -> SyncJob[Any, Any]:
        """As ``Cluster.job``."""
        return SyncJob(self._wait, self._cluster.job_of(id, Call.reading(f)))

    @property
    def functions(self) -> list[FunctionStatus]:
        return self._cluster.functions

    @property
    def workers(self) -> list[Presence]:
        return self._cluster.workers

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._cluster.is_foreign:
            coroutine.close()
            raise ClusterClosed(FORKED)
        loop = self._own_loop or self._cluster._loop
        if loop is None:
            coroutine.close()
            raise ClusterClosed(
                "the cluster is not started: use it in 'with Cluster().sync as cluster'"
            )
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is loop:
            coroutine.close()
            raise ClusterClosed(
                "cluster.sync would block its own event loop here; use 'await cluster.map(…)'"
            )
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end_thread(self) -> None:
        loop, self._own_loop = self._own_loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()
            self._thread = None


class SyncStream(Generic[X, Y]):
    """An iterator, and a context manager, of ``Outcome``."""

    def __init__(
        self, wait: Callable[[Coroutine[Any, Any, Any]], Any], stream: Stream[X, Y]
    ) -> None:
        self._wait = wait
        self._stream = stream
        self._pid = process_id()
        self._ready: Iterator[Outcome[X, Y]] = iter(())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome[X, Y]:
        if self._pid != process_id():
            raise ClusterClosed(FORKED)
        for outcome in self._ready:
            return outcome
        batch = self._wait(self._stream.next_batch())
        if not batch:
            raise StopIteration
        self._ready = iter(batch)
        return next(self._ready)

    if not TYPE_CHECKING:
        __aiter__ = __aenter__ = __aexit__ = refusing(
            "a stream of cluster.sync is read with 'for' and 'with'; the async one is "
            "cluster.stream(f, items)"
        )

    def close(self) -> None:
        """Withdraws what is not done."""
        if self._pid == process_id():
            self._wait(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
