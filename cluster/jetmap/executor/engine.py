"""The engine of an executor: a thread with an event loop, and workers of its own.

All calls of ``submit`` share one open map, and each call of ``map`` is one map. Calls are packed
in the thread that makes them; this thread cuts them into chunks and resolves their futures.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - Cannot be imported once the program is ending.
import contextlib
import logging
import multiprocessing
import os
import queue
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jetmap.client.session import Session
from jetmap.dispatch.map_spec import MapSpec
from jetmap.embedded.membership import KeeperSpec
from jetmap.errors import ExecutorBroken
from jetmap.functions.function import Function
from jetmap.import_path import note_hiding_files
from jetmap.machine import THREAD_VARIABLES, choose_cores
from jetmap.settings import Settings
from jetmap.standard_streams import hold_closed

from . import remote
from .blobs import Blobs
from .calls import CallSource, ItemSource, Pending
from .link import Link
from .results import broken_by
from .shortcut import ReportReader
from .unread import UnreadFailures

with contextlib.suppress(ImportError):
    import uvloop  # noqa: F401 - As above.

TERMINATE_SECONDS = 0.5  # Seconds that workers get to handle SIGTERM.

logger = logging.getLogger(__name__)

_submit = Function(remote.call, name="jetmap.submit", attempts=1)
_map = Function(remote.call_of_map, name="jetmap.map", attempts=1)
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_unread = UnreadFailures()
_is_exiting = False


class Engine:
    """Workers, and the calls that they run. The first call starts them.

    Args:
        workers: Number of workers.
        pinned: Whether each worker keeps to one core.
        calls: Calls that a worker runs before it is replaced; 0: any number.

    Attributes:
        blobs: Large parts of calls and results.
        initializer: The packed initializer and its arguments; empty if there is none.
        broken: The error of all further calls, once no worker can run them.
    """

    def __init__(self, workers: int, *, pinned: bool, calls: int) -> None:
        self.blobs = Blobs()
        self.broken: ExecutorBroken | None = None
        self._id = secrets.token_hex(8)
        self._workers = workers
        self._pinned = pinned
        self.initializer = b""
        self._calls_each = calls
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._steps: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._is_woken = False
        self._calls: CallSource | None = None
        self._sources: set[CallSource | ItemSource] = set()  # Those that have not ended.
        # In the engine's thread:
        self._maps: dict[asyncio.Task[None], CallSource | ItemSource] = {}
        self._session: Session | None = None
        self._link: Link | None = None
        self._reports: ReportReader | None = None
        self._log_level = ""  # Of the calls; empty: that of the settings.
        self._is_ending = False
        self._idle = asyncio.Event()

    # From any thread

    def submit(self, call: Pending) -> None:
        """Queue a call of the shared map."""
        with self._lock:
            self.check()
            if self._calls is None:
                self._calls = CallSource(self._workers, self.blobs, self._break, self._most)
                self._begin(self._calls)
            self._calls.add(call)
        self._wake()

    def map(self, name: str, function: bytes, items: Sequence[Any], *, single: bool) -> ItemSource:
        """Begin a map of its own; return its source, which also has its results."""
        with self._lock:
            self.check()
            source = ItemSource(
                name, function, items, self.blobs, self._break, self._most, single=single
            )
            self._begin(source)
        self._wake()
        return source

    def close(self, *, cancel: bool = False) -> None:
        """Take no more calls, and end when all are done; ``cancel``: when those begun are."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._is_closed = True
            if cancel and self._calls is not None:
                self._calls.cancel()
        self.post(lambda: self._end(cancel))

    def kill(self, signal: int | None = None) -> None:
        """End the workers: now, or half a second after this signal."""
        self.close(cancel=True)
        self.post(lambda: self._kill(signal))

    def join(self) -> None:
        """Wait until everything has ended."""
        thread = self._thread
        if self._pid != os.getpid() or thread in (None, threading.current_thread()):
            return
        assert thread is not None
        thread.join()

    def post(self, step: Callable[[], object]) -> None:
        """Have the engine's thread do this step, if it lives."""
        self._steps.put(step)
        self._wake()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that have run a call."""
        return self._link.workers if self._link is not None else []

    @property
    def _most(self) -> int | None:
        """Items of one chunk, at most: a worker can be replaced only between two chunks."""
        return 1 if self._calls_each else None

    def check(self) -> None:
        """Raise unless calls can be submitted."""
        if self._pid != os.getpid():
            raise RuntimeError(
                "this executor was made before this process was forked: make one here"
            )
        if _is_exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        worker = sys.modules.get("jetmap.worker.main")
        if worker is not None and worker.in_worker and (remote.is_loading or not worker.in_item):
            raise RuntimeError(
                "a worker that imports this module would start workers in turn: put what uses an "
                'Executor under if __name__ == "__main__":, or into a function'
            )
        if self.broken is not None:
            _unread.discard(self.broken)
            raise ExecutorBroken(str(self.broken)) from self.broken
        if self._is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _begin(self, source: CallSource | ItemSource) -> None:
        self._sources.add(source)
        self._steps.put(lambda: self._open(source))
        if self._thread is None:
            _engines.add(self)
            self._thread = threading.Thread(target=self._run, name="jetmap executor", daemon=True)
            self._thread.start()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not self._is_woken:
            self._is_woken = True
            try:
                loop.call_soon_threadsafe(self._on_woken)
            except RuntimeError:  # It has just ended.
                return

    # In the engine's thread

    def _run(self) -> None:
        failure = _thread_ended(None)
        hold_closed()
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # Such as SystemExit of a future's callback.
            logger.exception("internal error: an executor ends")
            failure.__cause__ = error
            self.broken = self.broken or failure
        for source in list(self._sources):
            source.on_end(self.broken or failure)
        self.blobs.close()

    async def _serve(self) -> None:
        try:
            await self._start()
        except Exception as error:
            failure = ExecutorBroken(f"the workers cannot start: {error}")
            failure.__cause__ = error
            note_hiding_files(failure, sys.path)
            _unread.add(failure)
            self._break(failure)
        self._loop = asyncio.get_running_loop()
        self._on_woken()
        self._end_if_idle()
        await self._idle.wait()
        self._loop = None
        if self._link is not None and self._reports is not None:
            self._link.close()
            self._reports.close()
        if self._session is not None:
            await self._session.close()

    async def _start(self) -> None:
        settings = Settings.load()
        kept = settings.for_keeper()
        if not settings.was_given("log_level"):
            kept["log_level"] = "error"  # The future of a call that ends a worker says so.
            self._log_level = "warning"  # As in any Python program.
        spec = KeeperSpec(
            pool=settings.broker.pool,
            cores=self._workers,
            pinned=self._pinned,
            ahead=True,
            share=False,
            settings=kept,
        )
        self._session = await Session.open(settings, share=False, private=spec)
        dispatcher = self._session.dispatcher
        self._reports = ReportReader(dispatcher.take)
        dispatcher.before_results = self._reports.read
        dispatcher.scheduler.window.fix(self._workers)
        self._link = Link(self.blobs, self._reports)

    def _on_woken(self) -> None:
        self._is_woken = False
        while True:
            try:
                step = self._steps.get_nowait()
            except queue.Empty:
                break
            step()
        # Its map is open: what was added is sent in this turn, because one call may wait for it.
        if self._session is not None and self._calls is not None and self._calls.wake is not None:
            self._session.dispatcher.send()

    def _open(self, source: CallSource | ItemSource) -> None:
        task = asyncio.get_running_loop().create_task(self._read(source))
        self._maps[task] = source
        task.add_done_callback(self._on_read)

    async def _read(self, source: CallSource | ItemSource) -> None:
        """Run a map, and bring its outcomes to its source."""
        session = self._session
        if self.broken is not None or session is None:
            source.on_end(self.broken or ExecutorBroken("the workers are gone"))
            return
        try:
            function = _map if source.function else _submit
            spec = MapSpec(
                function=source.name,
                format="msgpack",
                kwargs=function.kwargs.encode({"context": self._context(source)}, "msgpack"),
                ref=await session.bring(function, source.name),
                attempts=1,
                ordered=source.is_ordered,
                # Results of ``Executor.map`` may come in steps, those of ``submit`` not.
                whole=bool(source.function),
                in_order=True,
            )
            async with await session.dispatcher.open(spec, source) as running:
                async for batch in running:
                    source.on_batch(batch)
            source.on_end(None)
        except asyncio.CancelledError:
            source.on_end(self.broken or ExecutorBroken("the workers were ended"))
        except Exception as error:
            failure = broken_by(error)
            _unread.add(failure)
            if not source.on_end(failure):
                _unread.discard(failure)

    def _context(self, source: CallSource | ItemSource) -> bytes:
        assert self._link is not None
        shared = remote.Shared(
            executor=self._id,
            link=self._link.path,
            authkey=bytes(multiprocessing.current_process().authkey),
            initializer=self.initializer,
            calls=self._calls_each,
            variables=_threads_each(self._workers),
            log_level=self._log_level,
        )
        return msgspec.msgpack.encode(remote.Context(shared, source.function))

    def _on_read(self, task: asyncio.Task[None]) -> None:
        self._sources.discard(source := self._maps.pop(task))
        if task.cancelled():  # Before it began.
            source.on_end(self.broken or ExecutorBroken("the workers were ended"))
        elif (error := task.exception()) is not None:  # Such as SystemExit of a future's callback.
            source.on_end(self.broken or _thread_ended(error))
        self._end_if_idle()

    def _break(self, failure: ExecutorBroken) -> None:
        """Fail all calls: no worker can run them."""
        if self.broken is None:
            self.broken = failure
            self._is_ending = True
            for task in self._maps:
                task.cancel()
            self._end_if_idle()

    def _end(self, cancel: bool) -> None:
        self._is_ending = True
        for source in list(self._maps.values()):
            if cancel:
                source.stop()
            source.close()
        self._end_if_idle()

    def _kill(self, signal: int | None) -> None:
        for pid in self.worker_pids if signal is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal or 0)
        seconds = 0.0 if signal is None else TERMINATE_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._cancel_maps)

    def _cancel_maps(self) -> None:
        for task in self._maps:
            task.cancel()

    def _end_if_idle(self) -> None:
        if self._is_ending and not self._maps and self._loop is not None:
            self._idle.set()


def _thread_ended(cause: BaseException | None) -> ExecutorBroken:
    failure = ExecutorBroken("the executor's thread has ended")
    failure.__cause__ = cause
    return failure


def _threads_each(workers: int) -> dict[str, str]:
    """Divide the cores among the workers, for numeric libraries; what the user has set stays.

    A worker has one thread without being asked.
    """
    share = str(max(1, len(choose_cores(None)) // workers))
    wanted = {name: os.environ.get(name, share) for name in THREAD_VARIABLES}
    return {name: threads for name, threads in wanted.items() if threads != "1"}


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _finish() -> None:
    """Finish the work of this program's executors, at its end."""
    global _is_exiting
    _is_exiting = True
    engines = list(_engines)
    # Whoever has interrupted the program does not want to wait for its calls.
    is_interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
    for engine in engines:
        if is_interrupted:
            engine.kill()
        else:
            engine.close()
    for engine in engines:
        engine.join()
    for failure in [] if is_interrupted else _unread.take():
        logger.error("an Executor has failed, and its calls with it: %s", failure)


# As the standard library's executors do: before threads are joined, while they can still start.
getattr(threading, "_register_atexit", atexit.register)(_finish)
