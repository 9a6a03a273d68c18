"""Submitting a job: its items encoded and stored piece by piece, never all at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, overload

import msgspec

from jetmap.dispatch.outcomes import X, Y, item_error
from jetmap.dispatch.sources import AsyncObjects, Objects
from jetmap.errors import JetmapError, JobsUnavailable, Unencodable
from jetmap.functions.advice import MISSING, check_call
from jetmap.wire import arrays

from .call import Call
from .job import Job

if TYPE_CHECKING:
    from jetmap.jobs.service import Jobs
    from jetmap.jobs.upload import Upload
    from jetmap.wire.messages import FunctionInfo

    from .session import Link

SUBMIT_OPTIONS = ("kwargs", "ttl", "timeout", "key")
CALLER = "python"  # Idempotency keys of Python programs are their own.
ANNOUNCED_SECONDS = 1.0  # For workers to announce a function that is called by name.
PIECE_BYTES = 256 << 10
PIECE_ITEMS = 16_384
PIECE_SECONDS = 0.01  # For which making one piece may hold up the event loop.

NO_STORE = (
    "jobs need a store that lasts: use the broker of `jetmap up` (which has one unless it was "
    "started with --store none), or another NATS server with JetStream, by its URL"
)


class Pieces:
    """Takes encoded items from a source: as many at once as a few milliseconds allow.

    max_item: bytes of one, which the source itself only looks at where items do not fit a piece.
    """

    def __init__(self, source: Objects, max_item: int) -> None:
        self._source = source
        self._max_item = max_item
        self._count = 64
        self._taken = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._source.total is not None and not self._source.has_items

    def next(self) -> list[msgspec.Raw] | None:
        """The next items, or None: there are none now.

        Raises what the caller's iterable raised, and Unencodable with the item's index.
        """
        began = time.perf_counter()
        taken = self._source.take(self._count, PIECE_BYTES)
        if taken is None:
            if self._source.error is not None:
                raise self._source.error
            return None
        if taken.error is not None:
            taken.error.index = self._taken
            raise item_error(taken.error)
        elements = arrays.split(taken.items, "msgpack")
        if len(taken.items) > self._max_item:
            self._check(elements)
        self._taken += taken.count
        took = time.perf_counter() - began
        if took > PIECE_SECONDS:
            self._count = max(1, self._count // 2)
        elif took < PIECE_SECONDS / 3:
            self._count = min(PIECE_ITEMS, 2 * self._count)
        return elements

    def _check(self, elements: list[msgspec.Raw]) -> None:
        for index, element in enumerate(elements, self._taken):
            if (size := len(memoryview(element))) > self._max_item:
                raise Unencodable(
                    index,
                    "ValueError",
                    f"the item takes {size:,} bytes; the limit is {self._max_item:,} "
                    "(setting max_item_bytes, within the broker's max_payload)",
                )

    def __iter__(self) -> Iterator[list[msgspec.Raw]]:
        """All of a source that never has to be waited for."""
        while (elements := self.next()) is not None:
            yield elements

    async def __aiter__(self) -> AsyncIterator[list[msgspec.Raw]]:
        """All of any source."""
        woken = asyncio.Event()
        self._source.wake = woken.set
        while True:
            elements = self.next()
            if elements is not None:
                yield elements
                await asyncio.sleep(0)  # Others shall come to run, also while there is room.
            elif self.ended:
                return
            else:
                await woken.wait()
                woken.clear()


async def abort(upload: Upload) -> None:
    """Nothing of the upload stays; for where another error is on its way."""
    # What cannot be removed now is removed by others, who miss its uploader's lease.
    with contextlib.suppress(JetmapError):
        await asyncio.shield(upload.abort())


class WithJobs(ABC):
    """What a ``Cluster`` can do with jobs."""

    _inline: bool

    @property
    def jobs(self) -> Jobs:
        """Jobs with items and values still encoded: for gateways.

        Raises JobsUnavailable: there can be none with ``inline=True``. An embedded cluster's
        raises it for every use.
        """
        self._check()
        if self._inline:
            raise JobsUnavailable(f"inline=True runs functions in this process; {NO_STORE}")
        return self._linked().jobs

    @overload
    async def submit(
        self,
        f: Callable[[X], Y],
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> Job[X, Y]: ...
    @overload
    async def submit(
        self,
        f: Callable[Concatenate[X, ...], Y],
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> Job[X, Y]: ...
    @overload
    async def submit(
        self,
        f: str,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> Job[Any, Any]: ...
    async def submit(
        self,
        f: Callable[..., Any] | str,
        items: Iterable[Any] | AsyncIterable[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
        **unknown: Any,
    ) -> Job[Any, Any]:
        """A map that goes on without this process; returns once its input is durable.

        f, items, kwargs: as for ``map``; there may be any number of items. ttl: seconds that
        the job is kept after its end, from 1 to a hundred years (setting job_ttl). timeout: seconds
        for the whole job, from its start. key: of your choice; a retry with the same key and input
        gives the same job. Raises Unencodable (``index``) for an item that cannot travel or is too
        large, UnknownFunction, JobsUnavailable, StoreFull, KeyBusy, KeyReused.
        """
        check_call(self, "submit", f, items, more, unknown, SUBMIT_OPTIONS)
        await self.announced(f)
        call = Call.of(f, kwargs, info=self.info)
        upload = await self.begin(call, ttl=ttl, timeout=timeout, key=key)
        source: Objects | None = None
        try:
            source = call.source(items, keep=False, max_item=self.max_item)
            async for elements in Pieces(source, self.max_item):
                await upload.put(elements)
            record = await upload.commit()
        except BaseException:
            await abort(upload)
            raise
        finally:
            if isinstance(source, AsyncObjects):
                await source.aclose()
        return self.job_of(record.id, call)

    @overload
    def job(self, id: str, f: Callable[..., Y]) -> Job[Any, Y]: ...
    @overload
    def job(self, id: str, f: str | None = None) -> Job[Any, Any]: ...
    def job(self, id: str, f: Callable[..., Any] | str | None = None) -> Job[Any, Any]:
        """A job that was submitted before, by whomever; whether there is one is not asked yet.

        f: the function that it runs, to whose type the values decode; None: to builtins.
        """
        self._check()
        return self.job_of(id, Call.reading(f))

    async def announced(self, f: Callable[..., Any] | str) -> None:
        """Wait a moment for workers to say how a function is annotated that is called by name."""
        if isinstance(f, str) and not self._inline and self.info(f) is None:
            with contextlib.suppress(JetmapError):  # What opens the map says so.
                await self._linked().dispatcher.agents.find(f, None, ANNOUNCED_SECONDS)

    async def begin(
        self, call: Call, *, ttl: float | None, timeout: float | None, key: str | None
    ) -> Upload:
        """The job's upload, still empty. Raises TypeError: the keyword parameters do not fit."""
        if call.function is None and not self._inline:
            call.check(self.info(call.name))
        elif not self._inline:
            await self._linked().require_offered(call.function)
        return await self.jobs.begin(
            call.name,
            format=call.format,
            kwargs=call.kwargs,
            caller=CALLER,
            key=key,
            ttl=ttl,
            timeout=timeout,
        )

    def job_of(self, id: str, call: Call) -> Job[Any, Any]:
        """A job whose values decode as the call's."""
        return Job(id, lambda: self.jobs, call)

    @property
    @abstractmethod
    def max_item(self) -> int: ...
    @abstractmethod
    def info(self, name: str) -> FunctionInfo | None: ...
    @abstractmethod
    def _linked(self) -> Link: ...
    @abstractmethod
    def _check(self) -> None: ...
