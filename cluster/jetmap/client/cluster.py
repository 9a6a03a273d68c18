"""What users hold: a cluster, embedded on this machine or reached over NATS."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, Self, TypeVar, overload

from jetmap import bounds
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.open_map import MapSpec
from jetmap.dispatch.roster import FunctionStatus
from jetmap.dispatch.sources import AsyncObjects, Objects, Source
from jetmap.dispatch.stats import Stats
from jetmap.errors import ClusterClosed, ItemError, LimitExceeded, UnknownFunction
from jetmap.functions.advice import MISSING, START, check_call, refusing
from jetmap.functions.locating import import_tasks
from jetmap.functions.task import find, registered
from jetmap.settings import Settings
from jetmap.wire.counts import PoolCounts
from jetmap.wire.messages import Format, FunctionInfo, Presence
from jetmap.worker.compute import Limits

from .call import Call, first_error
from .inline import InlineRun
from .owner import process_id
from .session import Link
from .stream import Run, Stream
from .submit import WithJobs

if TYPE_CHECKING:
    from .sync import SyncCluster

X = TypeVar("X")
Y = TypeVar("Y")


MAP_OPTIONS = ("kwargs", "timeout", "return_exceptions")
STREAM_OPTIONS = ("kwargs", "timeout", "ordered")


class Cluster(WithJobs):
    """Runs ``@task`` functions over lists, on every core of every host of a pool.

    url: of a NATS server or cluster ("nats://host:4222", several by commas); None: the setting
    nats_url, else an embedded one on this machine, shared with the other processes of this
    application. tasks: files or modules whose functions the embedded workers import first.
    pool: whose hosts share work. cores: of the embedded workers, a count or a list ("0,2-3").
    start_timeout: seconds that they may take. share: False makes an embedded cluster of its own.
    inline: runs functions in this process, without workers. settings: instead of those that
    ``Settings.load`` finds, which say all that is None here.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        tasks: Sequence[str] | str = (),
        pool: str | None = None,
        cores: int | str | None = None,
        start_timeout: float | None = None,
        share: bool = True,
        inline: bool = False,
        settings: Settings | None = None,
    ) -> None:
        refuse_in_worker()
        if url is not None and not isinstance(url, str):
            raise TypeError(
                f"the first argument of Cluster() is the URL of a NATS server, not {url!r:.60}; "
                "name the others: Cluster(cores=4), Cluster(tasks=['tasks.py'])"
            )
        self._url = url
        self._tasks = [tasks] if isinstance(tasks, str) else list(tasks)
        self._pool = pool
        self._cores = cores
        self._start_timeout = start_timeout
        self._share = share
        self._inline = inline
        start_timeout = bounds.TIMEOUT.check_optional("start_timeout", start_timeout)
        if settings is not None and start_timeout is not None:
            settings = settings.replace(start_timeout=start_timeout)
        self._settings = settings
        self._link: Link | None = None
        self._memory = Memory(1 << 62)  # inline
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    @classmethod
    async def start(cls, url: str | None = None, **options: Any) -> Self:
        """A started cluster; end it with ``aclose``. Takes what ``Cluster`` takes."""
        cluster = cls(url, **options)
        await cluster._start()
        return cluster

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # Checkers reject these by themselves.
        __enter__ = __exit__ = refusing(f"'with' cannot start a Cluster: {START}")

    async def aclose(self) -> None:
        """Withdraws every open map and leaves. Twice is harmless."""
        if self._loop is None or self._pid != process_id():
            return
        self._loop = None
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    # Running functions

    @overload
    async def map(
        self,
        f: Callable[[X], Y],
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[Y]: ...
    @overload
    async def map(
        self,
        f: Callable[Concatenate[X, ...], Y],
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[Y]: ...
    @overload
    async def map(
        self,
        f: Callable[[X], Y],
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool,
    ) -> list[Y | ItemError]: ...
    @overload
    async def map(
        self,
        f: Callable[Concatenate[X, ...], Y],
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool,
    ) -> list[Y | ItemError]: ...
    @overload
    async def map(
        self,
        f: str,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]: ...
    async def map(
        self,
        f: Callable[..., Any] | str,
        items: Iterable[Any] | AsyncIterable[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool = False,
        **unknown: Any,
    ) -> list[Any]:
        """The function's value for each item, in input order.

        f: the function, or its name. items: n inputs, consumed once. kwargs: the function's
        keyword-only parameters. timeout: seconds for the whole map, from 0.001 to a hundred years;
        None waits for ever.
        return_exceptions: put an ItemError in the place of each failing item. Returns n values,
        values[i] for items[i]. Raises the first failing item's ItemError (``index``, ``kind``),
        MapTimeout, UnknownFunction, NoWorkers, LimitExceeded, NotImportable.
        """
        check_call(self, "map", f, items, more, unknown, MAP_OPTIONS)
        self._check()
        timeout = bounds.TIMEOUT.check_optional("timeout", timeout)
        if isinstance(f, str):
            await self.announced(f)
        call = Call.of(f, kwargs, local=self._inline, info=self.info)
        items = await self._listed(items)
        if not return_exceptions:
            items = await call.prepared(items)
        source = call.source(
            items, keep=False, max_item=self.max_item, prepared=not return_exceptions
        )
        run = await self._open(call.name, source, call=call, kwargs=call.kwargs, timeout=timeout)
        try:
            batches = await run.collect(stop_at_error=not return_exceptions)
        finally:
            await run.aclose()
        values: list[Any] = []
        for batch in batches:
            decoded = call.values(batch)
            if not return_exceptions and (error := first_error(decoded)) is not None:
                raise error
            values += decoded
        return values

    @overload
    def stream(
        self,
        f: Callable[[X], Y],
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
    ) -> Stream[X, Y]: ...
    @overload
    def stream(
        self,
        f: Callable[Concatenate[X, ...], Y],
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
    ) -> Stream[X, Y]: ...
    @overload
    def stream(
        self,
        f: str,
        items: Iterable[X] | AsyncIterable[X],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
    ) -> Stream[X, Any]: ...
    def stream(
        self,
        f: Callable[..., Any] | str,
        items: Iterable[Any] | AsyncIterable[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
        **unknown: Any,
    ) -> Stream[Any, Any]:
        """Outcomes as they finish; see ``Stream``.

        items: taken as far as there is room for their results, so there may be any number.
        ordered: outcomes come in input order.
        """
        check_call(self, "stream", f, items, more, unknown, STREAM_OPTIONS)
        self._check()
        timeout = bounds.TIMEOUT.check_optional("timeout", timeout)
        call = Call.of(f, kwargs, local=self._inline, info=self.info)

        async def open() -> tuple[Run, Objects]:
            self._check()
            source = call.source(items, keep=True, max_item=self.max_item)
            try:
                run = await self._open(
                    call.name,
                    source,
                    call=call,
                    kwargs=call.kwargs,
                    timeout=timeout,
                    ordered=ordered,
                )
            except BaseException:
                if isinstance(source, AsyncObjects):
                    await source.aclose()
                raise
            return run, source

        return Stream(open, call)

    async def open(
        self,
        name: str,
        source: Source,
        *,
        format: Format,
        kwargs: bytes = b"",
        timeout: float | None = None,
        ordered: bool = False,
    ) -> Run:
        """A map whose items and values stay encoded: for gateways.

        Iterate over it for ``Batch``es; leaving its ``async with`` withdraws it. Raises
        UnknownFunction, NoWorkers, TooManyMaps.
        """
        self._check()
        timeout = bounds.TIMEOUT.check_optional("timeout", timeout)
        return await self._open(
            name, source, format=format, kwargs=kwargs, timeout=timeout, ordered=ordered
        )

    # What is there

    @property
    def functions(self) -> list[FunctionStatus]:
        """Functions that somebody offers now."""
        if self._inline:
            return [FunctionStatus(f.info(), ["inline"], 1, True) for f in registered()]
        return self._linked().dispatcher.roster.functions()

    def info(self, name: str) -> FunctionInfo | None:
        """How the newest offer describes a function; None if nobody offers it now."""
        if self._inline:
            function = find(name)
            return None if function is None else function.info()
        return self._linked().dispatcher.roster.offers(name).info

    @property
    def workers(self) -> list[Presence]:
        """The agents of the pool, as they last announced themselves."""
        return [] if self._inline else self._linked().dispatcher.roster.agents

    @property
    def pool_counts(self) -> PoolCounts:
        """Counters that the agents announce, summed over the pool."""
        return PoolCounts() if self._inline else self._linked().dispatcher.roster.counts

    @property
    def stats(self) -> Stats:
        """Counters of this process's maps."""
        return Stats() if self._inline else self._linked().dispatcher.stats

    @property
    def open_maps(self) -> int:
        """Maps of this process that are open or wait for a worker; jobs do not count."""
        return 0 if self._inline else self._linked().dispatcher.open_maps

    @property
    def memory(self) -> Memory:
        """What this process holds for its maps; a gateway adds the bodies."""
        return self._memory if self._inline else self._linked().dispatcher.memory

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return self._inline or (self._link is not None and self._link.connection.connected)

    @property
    def is_started(self) -> bool:
        return self._loop is not None

    @property
    def is_foreign(self) -> bool:
        """Whether it was started before this process was forked: it is the parent's."""
        return self._loop is not None and self._pid != process_id()

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            self._settings = Settings.load(
                nats_url=self._url,
                tasks=self._tasks or None,
                pool=self._pool,
                cores=self._cores,
                start_timeout=self._start_timeout,
            )
        return self._settings

    @cached_property
    def sync(self) -> SyncCluster:
        """The same methods for ``def`` endpoints, threads and scripts."""
        from .sync import SyncCluster

        return SyncCluster(self)

    # Inside

    async def _start(self) -> None:
        refuse_in_worker(starting=True)
        if self._loop is not None:
            raise ClusterClosed("this cluster is started already")
        self._loop = asyncio.get_running_loop()
        self._pid = process_id()
        try:
            if self._inline:
                for argument in self._tasks:
                    import_tasks(argument)
            else:
                self._link = await Link.open(self.settings, share=self._share, cores=self._cores)
        except BaseException:
            await self.aclose()
            raise

    async def _open(
        self,
        name: str,
        source: Source,
        *,
        call: Call | None = None,
        format: Format | None = None,
        kwargs: bytes = b"",
        timeout: float | None = None,
        ordered: bool = False,
    ) -> Run:
        if format is None:
            assert call is not None, "gateways say their format"
            format = call.format
        if self._inline:
            return self._open_inline(name, source, format, kwargs, timeout)
        function = call.function if call is not None else None
        if call is not None and function is None:
            call.check(self.info(name))
        link = self._linked()
        spec = MapSpec(
            function=name,
            format=format,
            kwargs=kwargs,
            timeout=timeout,
            ordered=ordered,
            ref=await link.bring(function, name),
            item_timeout=function.timeout if function is not None else None,
            attempts=function.attempts if function is not None else None,
        )
        return await link.dispatcher.open(spec, source)

    def _open_inline(
        self, name: str, source: Source, format: Format, kwargs: bytes, timeout: float | None
    ) -> InlineRun:
        function = find(name)
        if function is None:
            raise UnknownFunction(f"no function {name!r} is registered in this process")
        limits = Limits(value=self.max_item, report=self.settings.chunks.report_bytes)
        return InlineRun(
            function, source, format=format, kwargs=kwargs, timeout=timeout, limits=limits
        )

    @property
    def max_item(self) -> int:
        """Bytes that one encoded item or value may have."""
        limit = int(self.settings.limits.max_item_bytes)
        return limit if self._link is None else min(limit, self._link.max_item)

    async def _listed(self, items: Iterable[Any] | AsyncIterable[Any]) -> Sequence[Any]:
        """All items; of an endless iterable no more than the limit and one."""
        limit = self.settings.limits.max_list
        if isinstance(items, Sequence):
            self._check_length(len(items), "")
            return items
        found: list[Any] = []
        if isinstance(items, AsyncIterable):
            async for item in items:
                found.append(item)
                if len(found) > limit:
                    break
        else:
            found = list(islice(items, limit + 1))
        self._check_length(len(found), " or more")
        return found

    def _check_length(self, length: int, at_least: str) -> None:
        limit = self.settings.limits.max_list
        if length > limit:
            raise LimitExceeded(
                f"the list has {length:,} items{at_least}; the limit is {limit:,} "
                "(setting max_list). stream() takes any number",
                setting="max_list",
                limit=limit,
                value=length,
            )

    def _linked(self) -> Link:
        if self.is_foreign:
            raise ClusterClosed(FORKED)
        if self._link is None:
            raise ClusterClosed(_NOT_STARTED)
        return self._link

    def _check(self) -> None:
        if self._loop is None:
            raise ClusterClosed(_NOT_STARTED)
        if self.is_foreign:
            raise ClusterClosed(FORKED)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise ClusterClosed(
                "this cluster belongs to another event loop; use cluster.sync from threads"
            )


FORKED = "this cluster was started before this process was forked; start one here"
_NOT_STARTED = "the cluster is not started: use it in 'async with Cluster()'"


def refuse_in_worker(*, starting: bool = False) -> None:
    """Raises ClusterClosed inside an item, and where a worker would start one at all.

    A module that workers import may make a Cluster, for its application to start.
    """
    process = sys.modules.get("jetmap.worker.main")
    if process is None:
        return
    if process.in_item:
        raise ClusterClosed(
            "a Cluster cannot be used inside a worker: its core would wait for itself"
        )
    if starting and process.in_worker:
        raise ClusterClosed(
            "a Cluster cannot be started inside a worker, which imports this module to find its "
            'functions: put what starts one under if __name__ == "__main__":, or into the '
            "lifespan of your application"
        )
