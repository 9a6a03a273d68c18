"""A cluster for callers whose items are already encoded: its start and end, and its maps."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from jetmap import bounds
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.sources import Source
from jetmap.errors import ClusterClosed, JetmapError, JobsUnavailable
from jetmap.functions.advice import START, check_options, refusing
from jetmap.functions.importing import import_tasks
from jetmap.functions.task import find_named
from jetmap.import_path import note_hiding_files
from jetmap.settings import FIELDS, Settings
from jetmap.wire.messages import Format

from . import owner
from .event_loop import running_loop
from .in_worker import refuse_in_worker
from .refs import LARGE_KWARGS, Refs, are_pickled, digests_of
from .state import ClusterState

if TYPE_CHECKING:
    from jetmap.dispatch.constants import KeptConstants
    from jetmap.jobs.service import Jobs
    from jetmap.jobs.upload import Upload
    from jetmap.worker.state import WorkerState

    from .call import Call
    from .inline import InlineMap
    from .session import Session
    from .stream import RunningMap

_NO_STORE = (
    "inline=True runs functions in this process; jobs need a store that lasts: use the broker of "
    "`jetmap up` (which has one unless it was started with --store none), or another NATS server "
    "with JetStream, by its URL"
)

_CALLER = "python"  # Idempotency keys of Python programs do not meet those of other callers.
_ANNOUNCED_SECONDS = 1.0  # Seconds for workers to announce a function that is called by name.


class EncodedCluster(ClusterState):
    """The half of a ``Cluster`` that gateways use; see there for the parameters."""

    if not TYPE_CHECKING:  # Checkers find wrong parameters by themselves.

        def __new__(cls, *args: Any, **options: Any) -> Self:
            if cls.__init__ is EncodedCluster.__init__:
                known = ("url", *cls.__init__.__kwdefaults__)
                check_options("Cluster", known, options, FIELDS)
            return super().__new__(cls)

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
        trust_pickle: bool | None = None,
        settings: Settings | None = None,
    ) -> None:
        refuse_in_worker()
        if url is not None and not isinstance(url, str):
            raise TypeError(
                f"the first argument of Cluster() is the URL of a NATS server, not {url!r:.60}; "
                "name the others: Cluster(cores=4), Cluster(tasks=['tasks.py'])"
            )
        if not isinstance(tasks, Iterable):
            raise TypeError(
                f"tasks must be a list of files or modules, not {tasks!r:.60}: "
                "Cluster(tasks=['tasks.py'])"
            )
        given: dict[str, Any] = {
            "nats_url": url,
            "tasks": ([tasks] if isinstance(tasks, str) else list(tasks)) or None,
            "pool": pool,
            "cores": cores,
            "start_timeout": bounds.TIMEOUT.check_optional("start_timeout", start_timeout),
        }
        self._given = {name: value for name, value in given.items() if value is not None}
        self._base = settings
        self._settings = None if self._given else settings
        self._share = share
        self._inline = inline
        self._state: WorkerState | None = None  # Of an inline cluster.
        self._trust_pickle = trust_pickle
        self._opened: Session | None = None
        self._inline_memory = Memory(1 << 62)
        self._kept: KeptConstants | None = None  # Of an inline cluster.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    # Starting and ending

    @classmethod
    async def start(cls, url: str | None = None, **options: Any) -> Self:
        """Start a cluster without ``async with``; end it with ``aclose``.

        Args:
            url: As for ``Cluster``.
            **options: The other parameters of ``Cluster``.

        Returns:
            The started cluster.

        Raises:
            BrokerUnreachable: No NATS server answers at the URL.
            WorkerStartFailed: The embedded workers cannot start, or not within ``start_timeout``.
            ConfigurationError: A setting or a task file is wrong.
        """
        cluster = cls(url, **options)
        await cluster._start()
        return cluster

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # Checkers reject these by themselves.
        __enter__ = __exit__ = refusing(f"'with' cannot start a Cluster: {START}")

    async def aclose(self) -> None:
        """Withdraw every open map and leave the cluster. A second call does nothing."""
        if self._loop is None or self._pid != owner.pid:
            return
        self._loop = None
        if self._state is not None:
            await asyncio.to_thread(self._state.close)
        if self._kept is not None:
            await self._kept.close()
        session, self._opened = self._opened, None
        if session is not None:
            await session.close()

    async def _start(self) -> None:
        refuse_in_worker(starting=True)
        if self._loop is not None:
            raise ClusterClosed("this cluster is started already")
        self._loop = running_loop()
        self._pid = owner.pid
        try:
            if self._inline:
                for argument in self._given.get("tasks", ()):
                    import_tasks(argument)
            else:
                # Here, so that workers that import a program with a Cluster do not pay for it.
                from .session import Session

                self._opened = await Session.open(
                    self.settings, share=self._share, cores=self._given.get("cores")
                )
        except BaseException as error:
            if isinstance(error, Exception):
                note_hiding_files(error, sys.path)
            await self.aclose()
            raise

    # Running functions

    async def open(
        self,
        name: str,
        source: Source,
        *,
        format: Format,
        kwargs: bytes = b"",
        timeout: float | None = None,
        ordered: bool = False,
        early: bool = False,
        whole: bool = False,
        values: bool = True,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
    ) -> RunningMap:
        """Open a map whose items and values stay encoded.

        Args:
            name: The function's registered name.
            source: Encoded items.
            format: Encoding of items, keyword parameters and values.
            kwargs: The function's keyword parameters, encoded; empty if there are none.
            timeout: Seconds for the whole map, from 0.001 to a hundred years; None: no limit.
            ordered: Give batches in input order.
            early: Begin with a short chunk, for a reader that shows the first values at once.
            whole: Use long chunks, and send the last items early, for a reader that does without
                early values.
            values: Whether the function's values come back; else null does.
            labels: Names and values by which people find the map.
            max_parallel: Cores that the map may use at most; None: no limit of its own.

        Returns:
            An async iterator of ``Batch``. Leaving its ``async with`` withdraws the map.

        Raises:
            UnknownFunction: No worker ever announced this function.
            NoWorkers: The function is known, but no worker has it now.
            TooManyMaps: The limit of open maps is reached.
            ClusterClosed: The cluster is not started, or belongs to another loop or process.
        """
        self._check()
        if timeout is not None:
            timeout = bounds.TIMEOUT.check_optional("timeout", timeout)
        return await self._open(
            name,
            source,
            format=format,
            kwargs=kwargs,
            timeout=timeout,
            ordered=ordered,
            early=early,
            whole=whole,
            values=values,
            labels=labels,
            max_parallel=max_parallel,
        )

    async def _open(
        self,
        name: str,
        source: Source,
        *,
        format: Format,
        kwargs: bytes,
        timeout: float | None,
        ordered: bool = False,
        early: bool = False,
        whole: bool = False,
        values: bool = True,
        call: Call | None = None,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
    ) -> RunningMap:
        if self._inline:
            values = values and (call is None or call.has_values)
            refs = call.refs if call is not None else {}
            return self._open_inline(name, source, format, kwargs, timeout, values, refs)
        function = call.function if call is not None else None
        if call is not None and function is None:
            call.check(self.info(name))
        session = self._session
        constants = () if call is None or not call.refs else self._constants_of(call)
        ref = await session.bring(function, name)
        if format == "pickle" or (call is not None and are_pickled(call.refs)):
            ref = session.read_by_trusting(ref)
        spec = MapSpec(
            function=name,
            format=format,
            kwargs=kwargs,
            timeout=timeout,
            ordered=ordered,
            early=early,
            whole=whole,
            ref=ref,
            item_timeout=function.timeout if function is not None else None,
            attempts=function.attempts if function is not None else None,
            batch=function.batch_terms() if function is not None else None,
            together=function.max_parallel if function is not None else None,
            causes=call is not None and call.trusted,
            values=values if call is None else call.has_values,
            labels=dict(labels) if labels else None,
            max_parallel=max_parallel,
            constants=constants,
            decode=call.decode_owned if call is not None else None,
        )
        if len(kwargs) > LARGE_KWARGS:
            from .putting import open_large

            limit = int(self.settings.limits.max_put_bytes)
            return await open_large(session.dispatcher, spec, source, limit)
        return await session.dispatcher.open(spec, source)

    def _constants_of(self, call: Call) -> tuple[str, ...]:
        """Return the digests of the values that a call's references stand for.

        Raises:
            ValueError: A reference is closed, or belongs to another cluster.
            TypeError: The workers of the function cannot take one of them.
        """
        digests = digests_of(call.refs, self._constants)
        if self._inline:
            return digests
        session = self._session
        if are_pickled(call.refs) and not session.loads_pickles(call.name):
            raise TypeError(
                f"a value for {call.name} was put as a pickle, and workers that run it now do not "
                "load pickles of this process: put it again"
            )
        from .putting import check_protocol

        check_protocol(session.dispatcher.roster.agents)
        return digests

    @property
    def _constants(self) -> KeptConstants:
        """The values that were put into this cluster."""
        if not self._inline:
            return self._session.dispatcher.constants
        if self._kept is None:
            from jetmap.dispatch.constants import KeptConstants

            self._kept = KeptConstants(None, "")
        return self._kept

    def _open_inline(
        self,
        name: str,
        source: Source,
        format: Format,
        kwargs: bytes,
        timeout: float | None,
        values: bool,
        refs: Refs,
    ) -> InlineMap:
        from jetmap.worker.compute import Limits
        from jetmap.worker.state import WorkerState

        from .inline import InlineMap

        if self._state is None:
            self._state = WorkerState()
        function = find_named(name)
        if format == "pickle":
            function = function.pickling()
        if refs:
            from .putting import loader

            digests = digests_of(refs, self._constants)
            function = loader(self._constants, digests).filled(function, "", trusted=True)
        limits = Limits(value=self.max_item, report=self.settings.chunks.report_bytes)
        return InlineMap(
            function,
            source,
            format=format,
            kwargs=kwargs,
            timeout=timeout,
            limits=limits,
            values=values,
            state=self._state,
        )

    @property
    def jobs(self) -> Jobs:
        """Jobs whose items and values stay encoded.

        Raises JobsUnavailable with ``inline=True``. Without a lasting store, such as in an embedded
        cluster, each use of the result raises it.
        """
        self._check()
        if self._inline:
            raise JobsUnavailable(_NO_STORE)
        return self._session.jobs

    async def _until_announced(self, f: Callable[..., Any] | str) -> None:
        """Wait a moment for workers to announce a function that is called by name."""
        if isinstance(f, str) and not self._inline and self.info(f) is None:
            with contextlib.suppress(JetmapError):  # Opening the map raises it.
                await self._session.dispatcher.agents.find(f, None, _ANNOUNCED_SECONDS)

    async def _begin_upload(
        self,
        call: Call,
        *,
        ttl: float | None,
        timeout: float | None,
        key: str | None,
        max_failed: int | str | None = None,
        labels: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
    ) -> Upload:
        """Begin the job's upload. Raises TypeError if the keyword parameters do not fit."""
        if call.refs and not self._inline:
            self._constants_of(call)
        if call.function is None and not self._inline:
            call.check(self.info(call.name))
        elif not self._inline:
            await self._session.require_offered(call.function)
        jobs = self.jobs
        options: dict[str, Any] = {
            "format": call.format,
            "caller": _CALLER,
            "key": bounds.check_key(key),
            "ttl": ttl,
            "timeout": timeout,
            "causes": call.trusted,
            "max_failed": max_failed,
            "labels": bounds.check_labels(labels),
            "max_parallel": bounds.PARALLEL.check_optional("max_parallel", max_parallel),
            "values": call.has_values,
        }
        if call.refs or len(call.kwargs) > LARGE_KWARGS:
            from .putting import begin_large

            limit = int(self.settings.limits.max_put_bytes)
            return await begin_large(jobs, call, self._constants, limit, **options)
        return await jobs.begin(call.name, kwargs=call.kwargs, **options)
