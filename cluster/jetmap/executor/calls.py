"""Calls on their way: the sources of an executor's maps, which also receive the outcomes.

Any thread adds calls and reads results; the engine's thread takes calls and brings outcomes.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from time import monotonic
from typing import Any

import msgspec

from jetmap.dispatch.flight import Piece
from jetmap.dispatch.outcomes import Batch, item_error
from jetmap.errors import ExecutorBroken
from jetmap.wire.messages import ErrorRecord

from .blobs import Blobs
from .packing import blobs_of, pack_call
from .remote import Plain
from .results import Break, ResultLoader, broken_by

_encode = msgspec.msgpack.Encoder().encode
_values = msgspec.msgpack.Decoder(list[Plain]).decode

RECENT = 8  # Outcomes for each worker whose functions count.

_NATIVE = frozenset((bool, float, int, type(None)))
_END = object()

Post = Callable[[Callable[[], object]], None]


class Pending:
    """A call that waits for a worker: its future, its bytes, the blobs that it needs, and the name
    of its function.
    """

    __slots__ = ("blobs", "data", "function", "future")

    def __init__(self, future: Future[Any], data: bytes, blobs: list[int], function: str) -> None:
        self.future = future
        self.data = data
        self.blobs = blobs
        self.function = function


class CallSource:
    """The calls of ``submit``, whose end is not known before the executor's.

    The dispatcher knows what calls took lately, whatever their functions. So a call whose function
    is not among those goes alone: nothing waits behind it at its worker.

    Args:
        workers: Number of workers.
        most: Calls in one chunk, at most; None: no limit.
    """

    wake: Callable[[], None] | None = None
    fails_at_once = True
    error: BaseException | None = None
    is_ordered = False
    name = "jetmap.executor"
    function = b""

    def __init__(self, workers: int, blobs: Blobs, on_broken: Break, most: int | None) -> None:
        self._workers = workers
        self._blobs = blobs
        self._results = ResultLoader(blobs, on_broken)
        self._most = most
        self._waiting: deque[Pending] = deque()
        # The functions of the latest outcomes: what they took is known.
        self._recent: deque[str] = deque(maxlen=RECENT * workers)
        self._out: dict[int, Pending] = {}
        self._taken = 0
        self._is_closed = False
        self._lock = threading.Lock()
        self._ended: BaseException | None = None

    # From any thread

    def add(self, call: Pending) -> None:
        """Queue a call; fail it if the map has ended meanwhile."""
        with self._lock:
            ended = self._ended
            if ended is None:
                self._waiting.append(call)
        if ended is not None:
            self._fail(call, ended)

    def cancel(self) -> None:
        """Cancel the calls that wait. While the workers start, the first of them count as begun."""
        for call in list(self._waiting)[max(0, self._workers - self._taken) :]:
            call.future.cancel()

    # For the dispatcher

    @property
    def total(self) -> int | None:
        return self._taken + len(self._waiting) if self._is_closed else None

    @property
    def remaining(self) -> int | None:
        return len(self._waiting)

    @property
    def has_items(self) -> bool:
        return bool(self._waiting)

    def take(self, count: int, max_bytes: int) -> Piece | None:
        start, taken, size = self._taken, list[bytes](), 5
        waiting, recent = self._waiting, set(self._recent)
        count = min(count, self._most or count)
        while waiting and len(taken) < count:
            call = waiting[0]
            if call.function not in recent:
                count = 1
            if taken and (count == 1 or size + len(call.data) > max_bytes):
                break
            waiting.popleft()
            size += len(call.data) + 5
            if call.future.set_running_or_notify_cancel():
                self._out[start + len(taken)] = call
                taken.append(call.data)
            else:
                self._blobs.release(call.blobs)
        if not taken:
            return None
        self._taken += len(taken)
        return Piece(start, len(taken), _encode(taken))

    # For the engine

    def close(self) -> None:
        """Know that there will be no more calls."""
        self._is_closed = True
        if self.wake is not None:
            self.wake()

    def stop(self) -> None:
        """Cancel the calls that wait, in the engine's thread."""
        self.cancel()

    def on_batch(self, batch: Batch) -> None:
        values = _values(batch.values)
        errors = {record.index: record for record in batch.errors}
        for index, value in enumerate(values, batch.start):
            call = self._out.pop(index)
            self._recent.append(call.function)
            if call.blobs:
                self._blobs.release(call.blobs)
            future = call.future
            del call
            if errors and (record := errors.get(index)) is not None:
                future.set_exception(item_error(record))
                continue
            try:
                result = self._results.load(value)
            except BaseException as error:
                # Its traceback would keep all of these values.
                future.set_exception(error.with_traceback(None))
                self._results.check([value])
            else:
                future.set_result(result)
                del result
            del future

    def on_end(self, error: BaseException | None) -> bool:
        """Fail the calls that have no outcome, since their map has ended; return whether any has.

        Calls that were cancelled do not count.
        """
        failure = broken_by(error or ExecutorBroken("the executor was shut down"))
        with self._lock:
            self._ended = self._ended or failure
            lost = [*self._out.values(), *self._waiting]
            self._out.clear()
            self._waiting.clear()
        return any([self._fail(call, failure) for call in lost])

    def _fail(self, call: Pending, error: BaseException) -> bool:
        """Give a call this error; return False if it was cancelled."""
        self._blobs.release(call.blobs)
        if not (call.future.running() or call.future.set_running_or_notify_cancel()):
            return False
        call.future.set_exception(error)
        return True


class ItemSource:
    """The items of one ``Executor.map``, packed as they are taken, and its results in order.

    Args:
        name: The function's name; what its calls cost is remembered by it.
        function: The packed function.
        items: Tuples of arguments; with ``single``, the only argument of each call.
        most: Items of one chunk, at most; None: no limit.
    """

    wake: Callable[[], None] | None = None
    fails_at_once = True
    error: BaseException | None = None
    is_ordered = True

    def __init__(
        self,
        name: str,
        function: bytes,
        items: Sequence[Any],
        blobs: Blobs,
        on_broken: Break,
        most: int | None,
        *,
        single: bool,
    ) -> None:
        self.name = name
        self.function = function
        self._function_blobs = blobs_of(function)
        self._items = items
        self._single = single
        self._blobs = blobs
        self._results = ResultLoader(blobs, on_broken)
        self._most = most
        self._taken = 0
        self._last: int | None = None  # Number of items, if cut short.
        self._held: dict[int, list[int]] = {}
        self._refused: dict[int, BaseException] = {}
        self._is_begun = False  # Its reader has asked for a result.
        self._is_left = False  # Nobody reads its results any more.
        self._batches: queue.SimpleQueue[Any] = queue.SimpleQueue()

    # For the dispatcher

    @property
    def total(self) -> int:
        return len(self._items) if self._last is None else self._last

    @property
    def remaining(self) -> int:
        return max(0, self.total - self._taken)

    @property
    def has_items(self) -> bool:
        return self._taken < self.total

    def take(self, count: int, max_bytes: int) -> Piece | None:
        start = self._taken
        items = self._items[start : min(start + min(count, self._most or count), self.total)]
        if not items:
            return None
        encoded = self._native(items)
        if encoded is None or len(encoded) > max_bytes:
            return self._packed(start, items, max_bytes)
        self._taken += len(items)
        return Piece(start, len(items), encoded)

    def _native(self, items: Sequence[Any]) -> bytes | None:
        """Encode items that are plain numbers, all at once; None if they are not."""
        if not self._single or not _NATIVE.issuperset(map(type, items)):
            return None
        try:
            return _encode(items)
        except OverflowError:
            return None

    def _packed(self, start: int, items: Sequence[Any], max_bytes: int) -> Piece:
        packed, size = list[bytes](), 5
        for index, item in enumerate(items, start):
            try:
                data = pack_call((item,) if self._single else item, {}, self._blobs.put)
            except Exception as error:
                if packed:
                    break
                self._refused[index] = error
                self._taken += 1
                record = ErrorRecord(index, "unencodable", type(error).__name__, str(error))
                return Piece(start, 1, b"", error=record)
            blobs = blobs_of(data)
            if packed and size + len(data) > max_bytes:
                self._blobs.release(blobs)
                break
            if blobs:
                self._held[index] = blobs
            packed.append(data)
            size += len(data) + 5
        self._taken += len(packed)
        return Piece(start, len(packed), _encode(packed))

    # For the engine

    def close(self) -> None:
        """Do nothing: the number of items is known."""

    def cancel(self) -> None:
        """Take no more items."""
        self._last = self._taken

    def stop(self) -> None:
        """Take no more items, in the engine's thread."""
        self.cancel()
        if self.wake is not None:
            self.wake()

    def on_batch(self, batch: Batch) -> None:
        values = _values(batch.values)
        for index in range(batch.start, batch.start + batch.count) if self._held else ():
            self._blobs.release(self._held.pop(index, []))
        is_packed = bytes in set(map(type, values))
        if is_packed:
            self._results.check(values)
        if self._is_left:
            self._results.drop(values)
            return
        self._batches.put((batch.start, values, batch.errors, is_packed))

    def leave(self) -> None:
        """Drop the results that nobody will read, in the engine's thread."""
        self._is_left = True
        while not self._batches.empty():
            found = self._batches.get()
            if isinstance(found, tuple):
                self._results.drop(found[1])

    def on_end(self, error: BaseException | None) -> bool:
        """End the results; return whether some are missing that somebody may still read."""
        for blobs in (self._function_blobs, *self._held.values()):
            self._blobs.release(blobs)
        self._held.clear()
        self._batches.put(broken_by(error) if error is not None else _END)
        return error is not None and not (self._is_left and self._is_begun)

    # For the reader

    def results(self, deadline: float | None, post: Post) -> Iterator[Any]:
        """Give the values in order; raise the first exception among them.

        Args:
            post: Has the engine's thread do something.
        """
        values = self._read(deadline, lambda: post(self._stop_and_leave))
        # A map whose iterator is dropped at once goes on, as in a process pool.
        dropped = weakref.finalize(values, self._on_dropped, post)
        dropped.atexit = False
        return values

    def _on_dropped(self, post: Post) -> None:
        if not self._is_begun:
            post(self.leave)

    def _stop_and_leave(self) -> None:
        self.stop()
        self.leave()

    def _read(self, deadline: float | None, on_leave: Callable[[], None]) -> Iterator[Any]:
        self._is_begun = True
        values: list[Plain] = []
        try:
            left = len(self._items)
            while left:
                start, values, errors, is_packed = self._next(deadline)
                left -= len(values)
                if not is_packed and not errors:
                    yield from values
                    continue
                records = {record.index: record for record in errors}
                values.reverse()
                while values:
                    if records and (record := records.get(start)) is not None:
                        raise self._refused.pop(start, None) or item_error(record)
                    start += 1
                    yield self._results.load(values.pop())
        finally:
            self._results.drop(values)
            on_leave()

    def _next(self, deadline: float | None) -> tuple[int, list[Plain], list[ErrorRecord], bool]:
        try:
            wait = None if deadline is None else max(0.0, deadline - monotonic())
            found = self._batches.get(timeout=wait)
        except queue.Empty:
            raise TimeoutError from None
        if found is _END:
            raise CancelledError
        if isinstance(found, BaseException):
            raise found
        batch: tuple[int, list[Plain], list[ErrorRecord], bool] = found
        return batch
