"""Blocking classes, made from ``client/cluster.py`` by ``scripts/unasync.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack, overload

from jetmap.client._sync.job import SyncJob
from jetmap.client._sync.stream import SyncStream
from jetmap.client.blocking import BlockingCluster
from jetmap.client.job import Job
from jetmap.client.options import (
    EffectOptions,
    ErrorOptions,
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
from jetmap.client.progress import Progress
from jetmap.client.refs import Ref, T
from jetmap.client.stream import Stream
from jetmap.dispatch.outcomes import X, Y
from jetmap.dispatch.roster import FunctionStatus
from jetmap.errors import ItemError
from jetmap.functions.advice import MISSING, check_call, check_not_async
from jetmap.wire.presence import Presence


class SyncCluster(BlockingCluster):
    """The methods of a ``Cluster`` for code that is not async.

    ``with Cluster().sync as cluster`` starts the cluster in a thread of its own. If the cluster is
    started already, ``cluster.sync`` uses its event loop. Any thread may call the methods, except
    for the thread of that event loop.
    """

    @overload
    def map(
        self, f: Callable[[X], Y], items: Iterable[X], /, **options: Unpack[MapOptions]
    ) -> list[Y]: ...

    @overload
    def map(
        self, f: KeywordFunction[X, Y], items: Iterable[X], /, **options: Unpack[MapOptions]
    ) -> list[Y]: ...

    @overload
    def map(
        self, f: Callable[[X], Y], items: Iterable[X], /, **options: Unpack[ErrorOptions]
    ) -> list[Y | ItemError]: ...

    @overload
    def map(
        self, f: KeywordFunction[X, Y], items: Iterable[X], /, **options: Unpack[ErrorOptions]
    ) -> list[Y | ItemError]: ...

    @overload
    def map(
        self, f: Callable[[X], Y], items: Iterable[X], /, **options: Unpack[ToleranceOptions]
    ) -> list[Y | ItemError]: ...

    @overload
    def map(
        self, f: KeywordFunction[X, Y], items: Iterable[X], /, **options: Unpack[ToleranceOptions]
    ) -> list[Y | ItemError]: ...

    @overload
    def map(
        self, f: Callable[[X], Y], items: Iterable[X], /, **options: Unpack[EffectOptions]
    ) -> list[Y | ItemError | None]: ...

    @overload
    def map(
        self, f: KeywordFunction[X, Y], items: Iterable[X], /, **options: Unpack[EffectOptions]
    ) -> list[Y | ItemError | None]: ...

    @overload
    def map(
        self, f: str, items: Iterable[Any], /, **options: Unpack[NamedOptions]
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
        check_call(SyncCluster.map, self, f, items, more, unknown)
        check_not_async(items)
        items = self._listed(items)
        return self._wait(
            self._cluster.map(
                f,
                items,
                kwargs=kwargs,
                timeout=timeout,
                return_exceptions=return_exceptions,
                max_failed=max_failed,
                values=values,
                labels=labels,
                max_parallel=max_parallel,
                progress=progress,
            )
        )

    @overload
    def stream(
        self, f: Callable[[X], Y], items: Iterable[X], /, **options: Unpack[StreamOptions]
    ) -> SyncStream[X, Y]: ...

    @overload
    def stream(
        self, f: KeywordFunction[X, Y], items: Iterable[X], /, **options: Unpack[StreamOptions]
    ) -> SyncStream[X, Y]: ...

    @overload
    def stream(
        self, f: Callable[[X], Y], items: Iterable[X], /, **options: Unpack[StreamEffectOptions]
    ) -> SyncStream[X, Y | None]: ...

    @overload
    def stream(
        self,
        f: KeywordFunction[X, Y],
        items: Iterable[X],
        /,
        **options: Unpack[StreamEffectOptions],
    ) -> SyncStream[X, Y | None]: ...

    @overload
    def stream(
        self, f: str, items: Iterable[X], /, **options: Unpack[StreamNamedOptions]
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
        max_failed: int | str | None = None,
        values: bool = True,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
        progress: bool | Callable[[Progress], object] = False,
        **unknown: Any,
    ) -> SyncStream[Any, Any]:
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
            An iterator, and a context manager, of ``Outcome``.
        """
        check_call(SyncCluster.stream, self, f, items, more, unknown)
        check_not_async(items)

        async def start() -> Stream[Any, Any]:
            return self._cluster.stream(
                f,
                items,
                kwargs=kwargs,
                timeout=timeout,
                ordered=ordered,
                max_failed=max_failed,
                values=values,
                labels=labels,
                max_parallel=max_parallel,
                progress=progress,
            )

        return SyncStream(self._wait, self._wait(start()))

    def put(self, value: T, /) -> Ref[T]:
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
        return self._wait(self._cluster.put(value))

    @overload
    def submit(
        self, f: Callable[[X], Y], items: Iterable[X], /, **options: Unpack[SubmitOptions]
    ) -> SyncJob[X, Y]: ...

    @overload
    def submit(
        self, f: KeywordFunction[X, Y], items: Iterable[X], /, **options: Unpack[SubmitOptions]
    ) -> SyncJob[X, Y]: ...

    @overload
    def submit(
        self, f: Callable[[X], Y], items: Iterable[X], /, **options: Unpack[SubmitEffectOptions]
    ) -> SyncJob[X, Y | None]: ...

    @overload
    def submit(
        self,
        f: KeywordFunction[X, Y],
        items: Iterable[X],
        /,
        **options: Unpack[SubmitEffectOptions],
    ) -> SyncJob[X, Y | None]: ...

    @overload
    def submit(
        self, f: str, items: Iterable[Any], /, **options: Unpack[SubmitNamedOptions]
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
        max_failed: int | str | None = None,
        values: bool = True,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
        **unknown: Any,
    ) -> SyncJob[Any, Any]:
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
        check_call(SyncCluster.submit, self, f, items, more, unknown)
        check_not_async(items)
        from jetmap.client.submit import EncodedItems, abort

        self._wait(self._cluster._until_announced(f))
        call = self._cluster._call(f, kwargs, values)
        upload = self._wait(
            self._cluster._begin_upload(
                call,
                ttl=ttl,
                timeout=timeout,
                key=key,
                max_failed=max_failed,
                labels=labels,
                max_parallel=max_parallel,
            )
        )
        try:
            with EncodedItems(call, items, self._cluster.max_item) as encoded:
                for elements in encoded:
                    self._wait(upload.put(elements))
            record = self._wait(upload.commit())
        except BaseException:
            self._wait(abort(upload))
            raise
        return SyncJob(self._wait, self._cluster._job(record.id, call))

    @overload
    def job(self, id: str, f: Callable[..., Y]) -> SyncJob[Any, Y]: ...

    @overload
    def job(self, id: str, f: str | None = None) -> SyncJob[Any, Any]: ...

    def job(self, id: str, f: Callable[..., Any] | str | None = None) -> SyncJob[Any, Any]:
        """Return a job that was submitted before, by any process.

        The job's own methods raise ``UnknownJob`` if there is none; this method asks nobody.

        Args:
            id: The job's ``id``.
            f: The function that the job runs, whose annotated type the values get. None, or a
                name: values are built-in types.

        Returns:
            The job.
        """

        async def start() -> Job[Any, Any]:
            return self._cluster.job(id, f)

        return SyncJob(self._wait, self._wait(start()))

    @property
    def functions(self) -> list[FunctionStatus]:
        """Functions that agents of the pool offer now."""
        return self._cluster.functions

    @property
    def workers(self) -> list[Presence]:
        """The latest announcement of each agent of the pool."""
        return self._cluster.workers
