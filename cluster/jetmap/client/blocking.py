"""The half of the blocking classes that is written by hand; ``_sync`` is generated on top of it.

A cluster has one event loop. Blocking methods run in their caller's thread, hand a coroutine to
that loop, and wait for its result.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast

from jetmap.dispatch.outcomes import Outcome, X, Y
from jetmap.errors import ClusterClosed
from jetmap.functions.advice import START, refusing
from jetmap.standard_streams import hold_closed

from .in_worker import refuse_in_worker
from .owner import process_id
from .state import FORKED
from .stream import OutcomeStream

if TYPE_CHECKING:
    from .cluster import Cluster

T = TypeVar("T")


class Wait(Protocol):
    """Runs a coroutine on the cluster's event loop; returns its result or raises its error."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


class BlockingCluster:
    """A cluster's event loop as other threads use it; ``with`` starts it in its own thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._thread: threading.Thread | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def start(self) -> Self:
        """Start the cluster in a thread of its own, unless it is started. Any thread may call this.

        A server that forks calls it in each request, as in ``cluster.start().map(f, items)``: the
        first request of a process starts the cluster, and it ends with the process, or by
        ``close``.

        Returns:
            This cluster.
        """
        with self._starting:
            if not self._cluster.is_started:
                self._start()
                atexit.register(self.close)
        return self

    def __enter__(self) -> Self:
        if self._cluster.is_started:
            raise ClusterClosed("this cluster is started already: use cluster.sync as it is")
        self._start()
        return self

    def _start(self) -> None:
        refuse_in_worker(starting=True)
        hold_closed()
        loop = asyncio.new_event_loop()
        self._own_loop = loop
        self._thread = threading.Thread(target=_run, args=(loop,), name="jetmap", daemon=True)
        self._thread.start()
        try:
            self._wait(self._cluster._start())
        except BaseException:
            self._end_thread()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    if not TYPE_CHECKING:  # Checkers reject these by themselves.
        __aenter__ = __aexit__ = refusing(f"cluster.sync is for code that is not async: {START}")

    def close(self) -> None:
        """Close the cluster, if ``with`` or ``start`` started it. A second call does nothing."""
        if self._own_loop is None:
            return
        atexit.unregister(self.close)
        if self._cluster.is_foreign:
            # The loop, its thread and the cluster belong to the parent process.
            self._own_loop = self._thread = None
        else:
            try:
                self._wait(self._cluster.aclose())
            finally:
                self._end_thread()

    def _wait(self, coroutine: Coroutine[Any, Any, T], /) -> T:
        if self._cluster.is_foreign:
            coroutine.close()
            raise ClusterClosed(FORKED)
        loop = self._own_loop or self._cluster._loop
        if loop is None:
            coroutine.close()
            raise ClusterClosed(
                "the cluster is not started, or is closed: use it in "
                "'with Cluster().sync as cluster'"
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
        future = asyncio.run_coroutine_threadsafe(_carried(coroutine), loop)
        try:
            value, error = future.result()
        except BaseException:
            future.cancel()
            raise
        if error is not None:
            raise error
        return cast(T, value)

    def _listed(self, items: Iterable[Any]) -> Sequence[Any]:
        """Take all items in this thread, but no more than one over the limit."""
        if isinstance(items, Sequence):
            return items
        return list(islice(items, self._cluster.settings.limits.max_list + 1))

    def _end_thread(self) -> None:
        loop, self._own_loop = self._own_loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()
            self._thread = None


class BlockingStream(Generic[X, Y]):
    """Iterates over an asynchronous stream; waits for its event loop only when nothing is ready."""

    def __init__(self, wait: Wait, stream: OutcomeStream[X, Y]) -> None:
        self._wait = wait
        self._stream = stream
        self._ready = stream.ready
        self._pid = process_id()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome[X, Y]:
        if self._pid != process_id():
            raise ClusterClosed(FORKED)
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                pass
            if not self._wait(self._stream.fill()):
                raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    if not TYPE_CHECKING:
        __aiter__ = __aenter__ = __aexit__ = refusing(
            "a stream of cluster.sync is read with 'for' and 'with'; the async one is "
            "cluster.stream(f, items)"
        )

    def close(self) -> None:
        """Close the stream, unless it belongs to a parent process. A second call does nothing."""
        if self._pid == process_id():
            self._wait(self._stream.aclose())


async def _carried(
    coroutine: Coroutine[Any, Any, T],
) -> tuple[T | None, BaseException | None]:
    """Return the result, or the error that would end the thread of the event loop.

    An iterable of items may raise one, as by ``sys.exit``.
    """
    try:
        return await coroutine, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        # Ctrl-C during a start leaves the start's tasks.
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
