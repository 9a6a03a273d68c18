"""The cluster that users hold: maps, streams and jobs of Python objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sized
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack, overload

from jetmap import bounds
from jetmap.dispatch.objects import AsyncObjects, Objects
from jetmap.dispatch.outcomes import X, Y
from jetmap.dispatch.tolerance import Tolerance
from jetmap.errors import ItemError
from jetmap.functions.advice import MISSING, check_call
from jetmap.functions.task import registered

from .call import Call, Pickles, listed
from .encoded import EncodedCluster
from .options import (
    EffectOptions,
    ErrorOptions,
    Items,
    KeywordFunction,
    MapOptions,
    NamedOptions,
    StreamEffectOptions,
    StreamNamedOptions,
    StreamOptions,
    SubmitEffectOptions,
    SubmitNamedOptions,
    SubmitOptions,
    ToleranceOptions,
)
from .progress import MeteredMap, Progress, check_progress
from .refs import Ref, T
from .stream import RunningMap, Stream

if TYPE_CHECKING:
    from jetmap.dispatch.roster import FunctionStatus
    from jetmap.wire.presence import Presence

    from ._sync.cluster import SyncCluster
    from .job import Job

DECODE_BYTES = 1 << 22  # Bytes of values that are decoded before other tasks have their turn.


class Cluster(EncodedCluster):
    """Run ``@task`` functions over lists, on every core of every host of a pool.

    Use it as ``async with Cluster() as cluster``, or through ``cluster.sync`` in code that is not
    async.

    Args:
        url: A NATS server, or several with commas: "nats://host:4222". None: the setting
            ``nats_url``; without one, the `jetmap up` of this directory, else an embedded cluster
            on this machine, shared with the other processes of this application.
        tasks: Files or modules that the embedded workers import when they start.
        pool: Name of the pool of hosts to use.
        cores: Cores for embedded workers: a count, or a list such as "0,2-3".
        start_timeout: Seconds in which the embedded workers must start.
        share: Use an embedded cluster together with other processes; False makes a private one.
        inline: Run functions in this process, without workers or a server.
        trust_pickle: Load pickles that workers send back: the exceptions of functions and, where
            workers trust their callers too, values without an annotation. Whoever may answer on the
            broker can then run code in this process. None: the setting ``trust_pickle``. Those of
            an embedded cluster are always loaded.
        settings: Settings to use instead of those that ``Settings.load`` finds. What is given here
            replaces theirs.

    Raises:
        ClusterClosed: Inside a worker, whose core would wait for itself.
    """

    # Running functions

    @overload
    async def map(
        self, f: Callable[[X], Y], items: Items[X], /, **options: Unpack[MapOptions]
    ) -> list[Y]: ...
    @overload
    async def map(
        self, f: KeywordFunction[X, Y], items: Items[X], /, **options: Unpack[MapOptions]
    ) -> list[Y]: ...
    @overload
    async def map(
        self, f: Callable[[X], Y], items: Items[X], /, **options: Unpack[ErrorOptions]
    ) -> list[Y | ItemError]: ...
    @overload
    async def map(
        self, f: KeywordFunction[X, Y], items: Items[X], /, **options: Unpack[ErrorOptions]
    ) -> list[Y | ItemError]: ...
    @overload
    async def map(
        self, f: Callable[[X], Y], items: Items[X], /, **options: Unpack[ToleranceOptions]
    ) -> list[Y | ItemError]: ...
    @overload
    async def map(
        self, f: KeywordFunction[X, Y], items: Items[X], /, **options: Unpack[ToleranceOptions]
    ) -> list[Y | ItemError]: ...
    @overload
    async def map(
        self, f: Callable[[X], Y], items: Items[X], /, **options: Unpack[EffectOptions]
    ) -> list[Y | ItemError | None]: ...
    @overload
    async def map(
        self, f: KeywordFunction[X, Y], items: Items[X], /, **options: Unpack[EffectOptions]
    ) -> list[Y | ItemError | None]: ...
    @overload
    async def map(
        self, f: str, items: Items[Any], /, **options: Unpack[NamedOptions]
    ) -> list[Any]: ...
    async def map(
        self,
        f: Callable[..., Any] | str,
        items: Items[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        return_exceptions: bool = False,
        max_failed: int | str | None = None,
        values: bool = True,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
        progress: bool | Callable[[Progress], object] = False,
        **unknown: Any,
    ) -> list[Any]:
        """Run a function over every item of a list; return the values in input order.

        Args:
            f: A ``@task`` function, or its name.
            items: Up to ``max_list`` items, consumed once.
            kwargs: The function's keyword-only parameters.
            timeout: Seconds for the whole map, from 0.001 to a hundred years; None: no limit.
            return_exceptions: Put an ``ItemError`` in the place of each failed item instead of
                raising the first one.
            max_failed: Items that may fail, each with its ``ItemError`` in its place: a number, or
                a share such as "5%". None: none may.
            values: Whether to return what the function returns. False: only its side effects
                count, and each value is None.
            labels: Names and values, such as ``{"customer": "7"}``, by which people find the map
                in ``jetmap top`` and on the dashboard: at most eight.
            max_parallel: Cores that the map may use at most, over the whole pool; None: no limit of
                its own.
            progress: True shows a bar on stderr, or below a notebook's cell. A function is called
                with a ``Progress`` at the start and after each batch of outcomes, in the event
                loop's thread; what it raises ends the map.

        Returns:
            A list as long as the input; its element i is the value of item i.

        Raises:
            TooManyFailed: More items failed than ``max_failed``; the rest is withdrawn.
            ItemError: An item failed. This is the first failed item's error, with its ``index``
                and ``kind``; items that are not done are withdrawn.
            MapTimeout: The map did not end within ``timeout``.
            UnknownFunction: No worker ever announced this function.
            NoWorkers: The function is known, but no worker has it now.
            TooManyMaps: The limit of open maps is reached.
            TooLarge: The list has more than ``max_list`` items.
            NotImportable: Workers cannot import the function from where it is defined.
        """
        check_call(Cluster.map, self, f, items, more, unknown)
        self._check()
        timeout = bounds.TIMEOUT.check_optional("timeout", timeout)
        tolerance = Tolerance.of(max_failed)
        if labels is not None or max_parallel is not None:
            labels, max_parallel = _checked(labels, max_parallel)
        check_progress(progress)
        keeps_errors = return_exceptions or tolerance is not None
        if isinstance(f, str):
            await self._until_announced(f)
        call = self._call(f, kwargs, values, local=self._inline)
        items = await listed(items, self.settings.limits.max_list)
        if not keeps_errors:
            items = await call.prepared(items)
        source = call.source(items, keep=False, max_item=self.max_item, prepared=not keeps_errors)
        running = await self._open_call(
            call,
            source,
            timeout,
            tolerance,
            progress,
            whole=True,
            labels=labels,
            max_parallel=max_parallel,
        )
        try:
            batches = await running.collect(stop_at_error=not keeps_errors)
        finally:
            await running.aclose()
        found: list[Any] = []
        batches.reverse()  # Each is let go of when it has been decoded: they may be large.
        size = 0
        while batches:
            batch = batches.pop()
            decoded = call.values(batch)
            if not keeps_errors and (error := call.failed(batch, decoded)) is not None:
                raise error
            found += decoded
            size += len(batch.values)
            if size > DECODE_BYTES:
                size = 0
                await asyncio.sleep(0)
        return found

    @overload
    def stream(
        self, f: Callable[[X], Y], items: Items[X], /, **options: Unpack[StreamOptions]
    ) -> Stream[X, Y]: ...
    @overload
    def stream(
        self, f: KeywordFunction[X, Y], items: Items[X], /, **options: Unpack[StreamOptions]
    ) -> Stream[X, Y]: ...
    @overload
    def stream(
        self, f: Callable[[X], Y], items: Items[X], /, **options: Unpack[StreamEffectOptions]
    ) -> Stream[X, Y | None]: ...
    @overload
    def stream(
        self, f: KeywordFunction[X, Y], items: Items[X], /, **options: Unpack[StreamEffectOptions]
    ) -> Stream[X, Y | None]: ...
    @overload
    def stream(
        self, f: str, items: Items[X], /, **options: Unpack[StreamNamedOptions]
    ) -> Stream[X, Any]: ...
    def stream(
        self,
        f: Callable[..., Any] | str,
        items: Items[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        ordered: bool = False,
        max_failed: int | str | None = None,
        values: bool = True,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
        progress: bool | Callable[[Progress], object] = False,
        **unknown: Any,
    ) -> Stream[Any, Any]:
        """Run a function over items; give each outcome as soon as it is there.

        The map starts when its first outcome is read, and raises what ``map`` raises, except for
        errors of items, which are in their outcomes.

        Args:
            f: A ``@task`` function, or its name.
            items: Any number of items. They are taken in the event loop's thread, as far as there
                is room for their outcomes, so an iterable that blocks delays every map.
            kwargs: The function's keyword-only parameters.
            timeout: Seconds for the whole map, from 0.001 to a hundred years; None: no limit.
            ordered: Give the outcomes in input order.
            max_failed: Items that may fail before the stream raises ``TooManyFailed``: a number, or
                a share such as "5%" of items whose length is known. None: any number.
            values: As for ``map``.
            labels: As for ``map``.
            max_parallel: As for ``map``.
            progress: As for ``map``.

        Returns:
            An async iterator, and an async context manager, of ``Outcome``.
        """
        check_call(Cluster.stream, self, f, items, more, unknown)
        self._check()
        timeout = bounds.TIMEOUT.check_optional("timeout", timeout)
        check_progress(progress)
        if labels is not None or max_parallel is not None:
            labels, max_parallel = _checked(labels, max_parallel)
        tolerance = Tolerance.of(max_failed)
        length = len(items) if isinstance(items, Sized) else None
        if tolerance is not None:
            tolerance.check_length(length)
        call = self._call(f, kwargs, values, local=self._inline)

        async def open() -> tuple[RunningMap, Objects]:
            self._check()
            source = call.source(items, keep=True, max_item=self.max_item)
            try:
                running = await self._open_call(
                    call,
                    source,
                    timeout,
                    tolerance,
                    progress,
                    ordered=ordered,
                    early=True,
                    labels=labels,
                    max_parallel=max_parallel,
                )
                return running, source
            except BaseException:
                if isinstance(source, AsyncObjects):
                    await source.aclose()
                raise

        return Stream(open, call, length)

    async def put(self, value: T, /) -> Ref[T]:
        """Put a value into the cluster, for functions that get it as a keyword argument.

        ``cluster.map(f, items, kwargs={"table": ref})`` calls ``f(item, table=value)``. The value
        is encoded once, and each host keeps one copy of it, which its workers share: NumPy arrays
        are views of that, and read-only. The hosts drop it when the reference is closed or gone
        and no map uses it any more, or when this cluster is closed, or its process dies.

        Args:
            value: Any value that an item without an annotation may be; up to ``max_put_bytes``.
                The function gets it as it was put, whatever the parameter's annotation is. Later
                changes of the original do not count.

        Returns:
            A reference, which is also a context manager.

        Raises:
            TypeError: The value cannot travel.
            TooLarge: It has more than ``max_put_bytes``.
            HostsFull: No host has room for it.
        """
        self._check()
        from .putting import put

        return await put(
            value,
            self._constants,
            pickled=self._pickles_everywhere,
            limit=int(self.settings.limits.max_put_bytes),
            agents=self.workers,
        )

    # Jobs

    @overload
    async def submit(
        self, f: Callable[[X], Y], items: Items[X], /, **options: Unpack[SubmitOptions]
    ) -> Job[X, Y]: ...
    @overload
    async def submit(
        self, f: KeywordFunction[X, Y], items: Items[X], /, **options: Unpack[SubmitOptions]
    ) -> Job[X, Y]: ...
    @overload
    async def submit(
        self, f: Callable[[X], Y], items: Items[X], /, **options: Unpack[SubmitEffectOptions]
    ) -> Job[X, Y | None]: ...
    @overload
    async def submit(
        self, f: KeywordFunction[X, Y], items: Items[X], /, **options: Unpack[SubmitEffectOptions]
    ) -> Job[X, Y | None]: ...
    @overload
    async def submit(
        self, f: str, items: Items[Any], /, **options: Unpack[SubmitNamedOptions]
    ) -> Job[Any, Any]: ...
    async def submit(
        self,
        f: Callable[..., Any] | str,
        items: Items[Any] = MISSING,
        /,
        *more: Any,
        kwargs: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        key: str | None = None,
        max_failed: int | str | None = None,
        values: bool = True,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
        **unknown: Any,
    ) -> Job[Any, Any]:
        """Submit a map that goes on without this process; return once its input is stored.

        Args:
            f: A ``@task`` function, or its name.
            items: Any number of items, consumed once.
            kwargs: The function's keyword-only parameters.
            ttl: Seconds to keep the job after its end, from 1 to a hundred years; None: the
                setting ``job_ttl``.
            timeout: Seconds for the whole job, from its start; None: no limit.
            key: An idempotency key. Submitting the same input with the same key again gives the
                same job.
            max_failed: Items that may fail before the job fails and the rest is dropped: a number,
                or a share such as "5%". None: any number, but one makes it a failed job.
            values: As for ``map``. False: the store keeps only the errors.
            labels: As for ``map``; ``GET /jobs`` and ``jetmap jobs`` filter by them.
            max_parallel: As for ``map``.

        Returns:
            The job.

        Raises:
            Unencodable: An item cannot travel or is too large; ``index`` says which.
            UnknownFunction: No worker ever announced this function.
            NotImportable: The function cannot be called by its name alone, as jobs are.
            JobsUnavailable: The cluster has no store that lasts.
            StoreFull: The store has no room for the job.
            KeyBusy: The first job with this key is still being uploaded.
            KeyReused: The key was used for another input, function or parameters.
        """
        check_call(Cluster.submit, self, f, items, more, unknown)
        from jetmap.client.submit import EncodedItems, abort

        await self._until_announced(f)
        call = self._call(f, kwargs, values)
        upload = await self._begin_upload(
            call,
            ttl=ttl,
            timeout=timeout,
            key=key,
            max_failed=max_failed,
            labels=labels,
            max_parallel=max_parallel,
        )
        try:
            async with EncodedItems(call, items, self.max_item) as encoded:
                async for elements in encoded:
                    await upload.put(elements)
            record = await upload.commit()
        except BaseException:
            await abort(upload)
            raise
        return self._job(record.id, call)

    @overload
    def job(self, id: str, f: Callable[..., Y]) -> Job[Any, Y]: ...
    @overload
    def job(self, id: str, f: str | None = None) -> Job[Any, Any]: ...
    def job(self, id: str, f: Callable[..., Any] | str | None = None) -> Job[Any, Any]:
        """Return a job that was submitted before, by any process.

        The job's own methods raise ``UnknownJob`` if there is none; this method asks nobody.

        Args:
            id: The job's ``id``.
            f: The function that the job runs, whose annotated type the values get. None, or a
                name: values are built-in types.

        Returns:
            The job.
        """
        self._check()
        if not isinstance(id, str):
            raise TypeError(f"id must be the id of a job, a text, not {bounds.shown(id)}")
        return self._job(id, Call.reading(f, trusted=self.trusts))

    # What the pool offers

    @property
    def functions(self) -> list[FunctionStatus]:
        """Functions that agents of the pool offer now."""
        if self._inline:
            from jetmap.dispatch.roster import FunctionStatus

            return [FunctionStatus(f.announced(), ["inline"], 1, True) for f in registered()]
        return self._session.dispatcher.roster.functions()

    @property
    def workers(self) -> list[Presence]:
        """The latest announcement of each agent of the pool."""
        return [] if self._inline else self._session.dispatcher.roster.agents

    @cached_property
    def sync(self) -> SyncCluster:
        """The same methods for ``def`` endpoints, threads and scripts."""
        from ._sync.cluster import SyncCluster

        return SyncCluster(self)

    # Inside

    def _call(
        self,
        f: Callable[..., Any] | str,
        kwargs: Mapping[str, Any] | None,
        values: bool,
        *,
        local: bool = False,
    ) -> Call:
        call = Call.of(
            f,
            kwargs,
            local=local,
            info=self.info,
            trusted=self.trusts,
            pickles=self._pickles,
        )
        return call if values else call.without_values()

    def _pickles(self, name: str) -> Pickles | None:
        """Return where pickled values of a function would go, if both sides trust each other."""
        if self._inline:
            return "near"
        if not self.trusts or not self._session.loads_pickles(name):
            return None
        return "near" if self._session.is_embedded else "far"

    @property
    def _pickles_everywhere(self) -> bool:
        """Return whether all workers of the pool load pickles of this process."""
        if self._inline:
            return True
        return self.trusts and self._session.all_load_pickles

    async def _open_call(
        self,
        call: Call,
        source: Objects,
        timeout: float | None,
        tolerance: Tolerance | None,
        progress: bool | Callable[[Progress], object],
        *,
        ordered: bool = False,
        early: bool = False,
        whole: bool = False,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
    ) -> RunningMap:
        running = await self._open(
            call.name,
            source,
            format=call.format,
            kwargs=call.kwargs,
            timeout=timeout,
            ordered=ordered,
            early=early,
            whole=whole,
            call=call,
            labels=labels,
            max_parallel=max_parallel,
        )
        if progress:
            running = MeteredMap(running, call.name, progress)
        if tolerance is not None:
            from .tolerant import TolerantMap

            running = TolerantMap(running, tolerance, trusted=call.trusted)
        return running

    def _job(self, id: str, call: Call) -> Job[Any, Any]:
        from .job import Job

        return Job(id, lambda: self.jobs, call)


def _checked(
    labels: Mapping[str, str] | None, max_parallel: int | None
) -> tuple[dict[str, str] | None, int | None]:
    """Check how a map is marked and limited, and return both."""
    parallel = bounds.PARALLEL.check_optional("max_parallel", max_parallel)
    return bounds.check_labels(labels), parallel
