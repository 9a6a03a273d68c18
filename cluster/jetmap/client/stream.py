"""Outcomes of a map as they finish."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self

from jetmap.dispatch.outcomes import Batch, Outcome, X, Y
from jetmap.dispatch.sources import AsyncObjects, Objects
from jetmap.errors import ClusterClosed, ItemError
from jetmap.functions.advice import refusing

from .call import Call
from .owner import process_id


class Run(Protocol):
    """An open map: on a cluster or inline."""

    id: str
    ended: bool

    @property
    def total(self) -> int | None: ...
    @property
    def done(self) -> int: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Batch: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def stop(self) -> None: ...
    async def aclose(self) -> None: ...
    async def collect(self, *, stop_at_error: bool) -> list[Batch]: ...


Opener = Callable[[], Awaitable[tuple[Run, Objects]]]


class Stream(Generic[X, Y]):
    """An async iterator, and an async context manager, of ``Outcome``.

    Failing items never raise from it. Leaving its ``async with`` withdraws the map; it starts
    with the first outcome that is asked for. Raises MapTimeout, what ``items`` raised (behind the
    outcomes of what they gave before), and what opening a map raises; ClusterClosed in another
    event loop and in a forked process.
    """

    def __init__(self, open: Opener, call: Call) -> None:
        self._open = open
        self._call = call
        self._run: Run | None = None
        self._source: Objects | None = None
        self._outcomes: deque[Outcome[X, Y]] = deque()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._pid = process_id()

    @property
    def total(self) -> int | None:
        """How many items there are, once that is known."""
        return self._run.total if self._run else None

    @property
    def done(self) -> int:
        """How many outcomes there are so far, read or not."""
        return self._run.done if self._run else 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[X, Y]:
        self._check()
        if not self._outcomes:
            await self._read()
        return self._outcomes.popleft()

    async def next_batch(self) -> list[Outcome[X, Y]]:
        """The outcomes that are there, at least one unless the stream has ended."""
        self._check()
        if not self._outcomes:
            try:
                await self._read()
            except StopAsyncIteration:
                return []
        batch = list(self._outcomes)
        self._outcomes.clear()
        return batch

    async def aclose(self) -> None:
        """Withdraws what is not done. Twice is harmless."""
        self._closed = True
        self._outcomes.clear()
        if not self._is_here():
            self._drop()
            return
        if self._run is not None:
            await self._run.aclose()
        if isinstance(self._source, AsyncObjects):
            await self._source.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # Checkers reject these by themselves.
        __iter__ = refusing("read a stream with 'async for'; cluster.sync.stream is for 'for'")
        __enter__ = __exit__ = refusing("leave a stream with 'async with', not 'with'")

    def __del__(self) -> None:
        # Dropped without being closed: nobody will read what is left.
        self._drop()

    def _drop(self) -> None:
        """Has the map withdrawn in its own event loop; that of a parent process goes on."""
        run = self._run
        if run is None or run.ended or self._pid != process_id() or not self._loop.is_running():
            return
        self._loop.call_soon_threadsafe(_close_soon, run)

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
        """The outcomes of at least one more item, or StopAsyncIteration."""
        if self._closed:
            raise StopAsyncIteration
        if self._run is None:
            self._run, self._source = await self._open()
        assert self._source is not None
        batch = await self._run.__anext__()
        give_back = self._source.give_back
        append = self._outcomes.append
        for index, value in enumerate(self._call.values(batch), batch.start):
            item: Any = give_back(index)
            if isinstance(value, ItemError):
                append(Outcome(index, item, None, value))
            else:
                append(Outcome(index, item, value, None))


def _close_soon(run: Run) -> None:
    task = asyncio.get_running_loop().create_task(run.aclose())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()
