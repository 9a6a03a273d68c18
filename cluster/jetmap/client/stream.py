"""Outcomes of a map as they finish."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self

from jetmap.background import Background
from jetmap.dispatch.objects import AsyncObjects, Objects
from jetmap.dispatch.outcomes import Batch, Outcome, X, Y
from jetmap.errors import ClusterClosed, ItemError
from jetmap.functions.advice import refusing

from .call import Call
from .owner import process_id

_dropped = Background("dropped streams")


class RunningMap(Protocol):
    """An open map, on a cluster or inline: an async iterator of its batches.

    Attributes:
        id: Identifies the map in logs and messages.
        ended: True once the map has given its last batch, or was closed.
    """

    id: str

    @property
    def ended(self) -> bool: ...

    @property
    def total(self) -> int | None:
        """Number of items; None until it is known."""

    @property
    def done(self) -> int:
        """Number of items that have an outcome."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Batch: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...
    def stop(self, before: int = 0) -> None:
        """Take no more items; the iteration ends after the outcomes of those taken.

        before: index of an item; while items before it are still to be taken, nothing happens.
        """

    async def aclose(self) -> None:
        """Withdraw what is not done. A second call does nothing."""

    async def collect(
        self, *, stop_at_error: bool, on_batch: Callable[[Batch], object] | None = None
    ) -> list[Batch]:
        """Return all batches in input order, or those up to the first error.

        Args:
            on_batch: Called with each batch as it arrives.
        """


class WrappedMap:
    """A running map around another one, which subclasses observe or end."""

    def __init__(self, run: RunningMap) -> None:
        self.id = run.id
        self._run = run

    @property
    def ended(self) -> bool:
        return self._run.ended

    @property
    def total(self) -> int | None:
        return self._run.total

    @property
    def done(self) -> int:
        return self._run.done

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def stop(self, before: int = 0) -> None:
        self._run.stop(before)

    async def aclose(self) -> None:
        await self._run.aclose()


class OutcomeStream(ABC, Generic[X, Y]):
    """Outcomes that are read a batch at a time and given one by one.

    Attributes:
        ready: Outcomes that were read and not yet given, in order. Only the event loop adds to it.
    """

    def __init__(self) -> None:
        self.ready: deque[Outcome[X, Y]] = deque()
        self._reading = asyncio.Lock()  # Several tasks may share a stream.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[X, Y]:
        self._check()
        while not self.ready:
            await self._read_one_by_one()
        return self.ready.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def next_batch(self) -> list[Outcome[X, Y]]:
        """Wait for outcomes; return all that are there, or an empty list at the end."""
        if not await self.fill():
            return []
        batch = list(self.ready)
        self.ready.clear()
        return batch

    async def fill(self) -> bool:
        """Wait until an outcome is ready; return False at the end of the stream."""
        self._check()
        if not self.ready:
            try:
                await self._read_one_by_one()
            except StopAsyncIteration:
                return False
        return True

    async def _read_one_by_one(self) -> None:
        """Make at least one more outcome ready, for whichever of several readers comes first.

        Raises StopAsyncIteration.
        """
        async with self._reading:
            if not self.ready:
                await self._read()

    @abstractmethod
    async def aclose(self) -> None:
        """Stop reading. A second call does nothing."""

    @abstractmethod
    async def _read(self) -> None:
        """Make at least one more outcome ready, or raise StopAsyncIteration."""

    def _check(self) -> None:
        """Raise ClusterClosed where this stream may not be read."""


class Stream(OutcomeStream[X, Y]):
    """An async iterator, and an async context manager, of ``Outcome``.

    The map starts when its first outcome is read. Leaving the ``async with`` withdraws what is not
    done. A failed item is an outcome with an ``error``; it does not raise. After the outcomes of
    the items before, the stream raises what ``items`` raised.

    Raises:
        MapTimeout: The map did not end within its ``timeout``.
        ClusterClosed: The stream is read in another event loop or in a forked process.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[tuple[RunningMap, Objects]]],
        call: Call,
        length: int | None = None,
    ) -> None:
        super().__init__()
        self._length = length
        self._open = open
        self._call = call
        self._running: RunningMap | None = None
        self._source: Objects | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._pid = process_id()

    @property
    def total(self) -> int | None:
        """Number of items; None until it is known."""
        return self._running.total if self._running else self._length

    @property
    def done(self) -> int:
        """Number of items that have an outcome, whether it was read or not."""
        return self._running.done if self._running else 0

    def __len__(self) -> int:
        """Number of items. Raises TypeError while it is not known."""
        total = self.total
        if total is None:
            raise TypeError("the number of items is not known yet: see the stream's total")
        return total

    def __bool__(self) -> bool:
        """Return True: a stream without items is a stream."""
        return True

    async def aclose(self) -> None:
        """Withdraw what is not done. A second call does nothing."""
        self._closed = True
        self.ready.clear()
        if not self._is_here():
            self._drop()
            return
        if self._running is not None:
            await self._running.aclose()
        if isinstance(self._source, AsyncObjects):
            await self._source.aclose()

    if not TYPE_CHECKING:  # Checkers reject these by themselves.
        __iter__ = refusing("read a stream with 'async for'; cluster.sync.stream is for 'for'")
        __enter__ = __exit__ = refusing("leave a stream with 'async with', not 'with'")

    def __del__(self) -> None:
        # Dropped without being closed: nothing will read the rest.
        self._drop()

    def _drop(self) -> None:
        """Withdraw the map from its own event loop, unless it belongs to a parent process."""
        if self._pid != process_id() or not self._loop.is_running():
            return
        running, source = self._running, self._source
        if running is not None and not running.ended:
            self._close_soon(running.aclose)
        if isinstance(source, AsyncObjects) and source.is_reading:
            self._close_soon(source.aclose)

    def _close_soon(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Close a part of this stream in its event loop; any thread may call this."""
        self._loop.call_soon_threadsafe(lambda: _dropped.spawn(close(), "close"))

    def _is_here(self) -> bool:
        if self._pid != process_id():
            return False
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _check(self) -> None:
        if self._is_here():
            return
        if self._pid != process_id():
            raise ClusterClosed("this stream was opened before this process was forked")
        raise ClusterClosed("this stream belongs to another event loop: read it there")

    async def _read(self) -> None:
        if self._closed:
            raise StopAsyncIteration
        if self._running is None:
            self._running, self._source = await self._open()
        assert self._source is not None
        try:
            batch = await self._running.__anext__()
        except asyncio.CancelledError:  # The reader may come again.
            raise
        except BaseException:
            if isinstance(self._source, AsyncObjects) and self._source.is_reading:
                self._close_soon(self._source.aclose)  # Its map takes no more.
            raise
        give_back = self._source.give_back
        append = self.ready.append
        for index, value in enumerate(self._call.values(batch), batch.start):
            item: Any = give_back(index)
            if isinstance(value, ItemError):
                append(Outcome(index, item, None, value, batch.tries))
            else:
                append(Outcome(index, item, value, None, batch.tries))
