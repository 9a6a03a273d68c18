"""The session of a started cluster: its connection, its dispatcher, and a keeper if embedded."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterable
from contextlib import AsyncExitStack
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

import msgspec

from jetmap.collector import without_collector
from jetmap.embedded.membership import KeeperSpec, Membership, join_keeper
from jetmap.errors import WorkerStartFailed
from jetmap.functions.function import Function
from jetmap.functions.locating import reference, running_main
from jetmap.functions.script_globals import ScriptGlobals
from jetmap.functions.task import find, registered
from jetmap.nats.auth import Auth
from jetmap.nats.server import TEMPORARY
from jetmap.settings import Settings
from jetmap.wire.messages import FunctionRef
from jetmap.wire.protocol import CONSTANTS_PROTOCOL
from jetmap.wire.versions import pickles, pickles_of

from .local_up import LocalUp, up_to_join

if TYPE_CHECKING:
    from jetmap.dispatch.dispatcher import Dispatcher
    from jetmap.jobs.service import Jobs
    from jetmap.monitoring.pool_watch import PoolWatch
    from jetmap.nats.connection import Connection

ARRIVAL_SECONDS = 0.25  # Seconds for the first agent that is there already to announce itself.
ANNOUNCE_SECONDS = 1.0  # Seconds for one that can run a function, after it was asked.

# Whether a test runner runs in this process, which may have no script of its own, as those of
# pytest-xdist: its functions are in files all the same.
runs_tests = False

_NO_STORE = (
    "an embedded cluster keeps nothing when its users are gone, and jobs outlive them: start "
    "'jetmap up TASKS' here, or a NATS server, and use its address (nats_url, JETMAP_NATS_URL)"
)

_NOT_KEPT = (
    "this `jetmap up` keeps nothing (--store none, or its directory could not be used), and jobs "
    "outlive it: start it with --store DIRECTORY"
)


class Session:
    """Everything that a started cluster holds, from ``open`` to ``close``."""

    def __init__(
        self,
        connection: Connection,
        dispatcher: Dispatcher,
        jobs: Jobs,
        watch: PoolWatch,
        membership: Membership | None,
        up: LocalUp | None = None,
    ) -> None:
        self.connection = connection
        self.dispatcher = dispatcher
        self.jobs = jobs
        self.watch = watch
        self._membership = membership
        self._up = up
        self._parts = AsyncExitStack()  # What to close, in order.
        self._refs: dict[Function, FunctionRef] = {}
        self._script_globals = ScriptGlobals()

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        share: bool,
        cores: int | str | None = None,
        private: KeeperSpec | None = None,
    ) -> Session:
        """Join the pool of these settings; without an address, start or join a cluster here.

        Args:
            share: Join the `jetmap up` of this directory, or an embedded cluster of others.
            cores: Cores that the caller asked for; None: not asked.
            private: Workers of the caller's own, on this machine, whatever the settings say.

        Raises:
            BrokerUnreachable: The server does not answer.
            TopologyMismatch: Its streams are not as they must be.
            WorkerStartFailed: The workers of this machine cannot start.
        """
        async with AsyncExitStack() as parts:
            membership = up = joining = None
            timeout = settings.workers.start_timeout
            if private is None and settings.broker.nats_url is not None:
                from jetmap.nats.dialing import CONNECT_SECONDS

                servers, auth = settings.broker.servers(), Auth.of(settings)
                timeout = CONNECT_SECONDS
            elif (
                private is None
                and share
                and (running := up_to_join(settings, cores=cores)) is not None
            ):
                up = LocalUp(running, settings.workers.start_timeout)
                settings = settings.replace(pool=running.pool)
                servers, auth = [running.url], running.auth
            else:
                joining = asyncio.create_task(
                    join_keeper(private or _spec(settings, share), timeout)
                )
                parts.callback(joining.cancel)
                await asyncio.sleep(0)  # A keeper starts while this process imports the rest.
            with without_collector():
                from jetmap.dispatch.dispatcher import Dispatcher, DispatchOptions
                from jetmap.jobs.service import Jobs
                from jetmap.monitoring.announcer import Announcer
                from jetmap.monitoring.pool_watch import PoolWatch
                from jetmap.nats.connection import Connection

            if joining is not None:
                membership = await joining
                parts.push_async_callback(membership.leave)
                servers, auth = list(membership.servers), membership.auth
            name = f"jetmap dispatcher {os.getpid()}"
            connection = await Connection.open(servers, name=name, auth=auth, timeout=timeout)
            parts.push_async_callback(connection.close)
            sealer = up.sealer if up is not None else None
            dispatcher = Dispatcher(connection, DispatchOptions(settings, sealer))
            parts.push_async_callback(dispatcher.close)
            if "opentelemetry.trace" in sys.modules:
                from jetmap import tracing

                if tracing.is_configured():
                    dispatcher.traces = tracing.MapTraces(settings.broker.pool)
            refusal = _refusal(connection, membership)
            jobs = Jobs(connection, dispatcher, settings, refusal=refusal)
            parts.push_async_callback(jobs.close)
            pool = settings.broker.pool
            store = int(settings.jobs.job_store_bytes)
            steering = dispatcher.steering
            watch = PoolWatch(connection, dispatcher.roster, pool, store, lambda: steering.control)
            parts.push_async_callback(watch.close)
            announcer = Announcer(connection, dispatcher, jobs, pool)
            parts.push_async_callback(announcer.close)
            session = cls(connection, dispatcher, jobs, watch, membership, up)
            await dispatcher.start()
            await jobs.start()
            await announcer.start()
            if membership is not None:
                membership.on_renewed(session._moved)
                membership.on_failed(dispatcher.agents.look_again)
                dispatcher.agents.own(session._are_starting, settings.workers.start_timeout)
            if up is not None:
                parts.push_async_callback(up.close)
                up.watch(session)
            await session._wait_for_workers(settings.workers.start_timeout)
            session._parts = parts.pop_all()
            return session

    async def close(self) -> None:
        """Withdraw every open map and leave the pool."""
        await self._parts.aclose()

    @property
    def is_embedded(self) -> bool:
        """Return whether a keeper of this user owns the server and all workers."""
        return self._membership is not None

    @property
    def keeper_pid(self) -> int | None:
        """Process id of the keeper, if the cluster is embedded."""
        return self._membership.keeper_pid if self._membership is not None else None

    async def bring(self, function: Function | None, name: str) -> FunctionRef | None:
        """Return what a call must carry for workers to find its function; None: its name is enough.

        Args:
            function: None if it is called by name.

        Raises:
            NotImportable: No worker could import the function.
            BrokerUnreachable: The `jetmap up` of this directory has ended.
        """
        if function is not None and self._up is not None:
            return await self._up.reference(function, self)
        if function is not None and self._membership is None:
            await self.dispatcher.agents.meet(function.name, ANNOUNCE_SECONDS)
        is_named = function is None and self._membership is not None
        if is_named and self.dispatcher.roster.offers(name).newest is None:
            # An embedded worker has not imported it yet, or could not.
            function = find(name)
        return self.reference(function)

    def loads_pickles(self, name: str) -> bool:
        """Return whether all workers that would run a function load pickles from this process.

        Those of a `jetmap up` that this process has joined count as workers that do not.
        """
        if self._membership is not None:
            return True
        return self._up is None and self.dispatcher.roster.reads_pickles(name, pickles())

    @property
    def all_load_pickles(self) -> bool:
        """Return whether all workers of the pool load pickles from this process."""
        if self._membership is not None:
            return True
        agents = self.dispatcher.roster.agents
        return (
            self._up is None
            and bool(agents)
            and all(
                p.trusts
                and p.protocol >= CONSTANTS_PROTOCOL
                and pickles_of(p.python, p.packages) == pickles()
                for p in agents
            )
        )

    def read_by_trusting(self, ref: FunctionRef | None) -> FunctionRef | None:
        """Add to a reference that only workers which load this process's pickles may get it."""
        if self._membership is not None:
            return ref
        ref = ref or FunctionRef("", "")
        return msgspec.structs.replace(ref, pickles=pickles(), items=True)

    async def require_offered(self, function: Function | None) -> None:
        """Raise NotImportable for a function that cannot be called by its name alone."""
        if function is not None and self._up is not None:
            await self._up.require_offered(function, self)

    def forget_references(self) -> None:
        """Make references anew, for other workers."""
        self._refs.clear()

    def reference(self, function: Function | None) -> FunctionRef | None:
        """Return where workers find a function; None if its name must do.

        Embedded workers always get a reference. Workers of other hosts get one if none of them has
        the function and some run pickled functions (``--trust-pickle``). A reference to a source
        file is kept. One that holds the function itself is made for each map, because what the
        function uses may have changed.
        """
        if function is None:
            return None
        far = self._membership is None
        if far:
            roster = self.dispatcher.roster
            if roster.offers(function.name).newest is not None or not roster.trusting_agents:
                return None
        ref = self._refs.get(function)
        if ref is None:
            ref = reference(function, far=far, limit=self.connection.room)
            if ref.value is None:
                self._refs[function] = ref
        if ref.path is not None and (changed := self._script_globals.changed(function)):
            warnings.warn(changed, RuntimeWarning, stacklevel=2)
        return ref

    async def _moved(self) -> None:
        """Follow to a new keeper, which usually has the same address."""
        if self._membership is not None:
            self.connection.move(list(self._membership.servers))

    def _are_starting(self) -> bool:
        """Return whether an embedded cluster has no agent, since its next keeper starts."""
        roster, membership = self.dispatcher.roster, self._membership
        return (
            membership is not None
            and membership.failed is None
            and roster.failure is None
            and not any(p.offer and not p.draining for p in roster.agents)
        )

    async def _wait_for_workers(self, timeout: float) -> None:
        roster, membership, up = self.dispatcher.roster, self._membership, self._up
        if membership is None and up is None:
            # Agents of other hosts may come later; those that are there announce themselves soon.
            await self.dispatcher.agents.wait_for(lambda: bool(roster.agents), ARRIVAL_SECONDS)
            return

        def failed() -> str | None:
            return membership.failed if membership is not None else None

        def started() -> bool:
            """Return True once workers have made an offer; they may still import modules."""
            if up is not None:
                return roster.has_local(up.sealer.offer)
            return any(p.offer for p in roster.agents)

        def settled() -> bool:
            ready = any(p.ready for p in roster.agents)
            if up is not None or (membership is not None and not membership.starter):
                ready = started()
            return ready or roster.failure is not None or failed() is not None

        in_time = await self.dispatcher.agents.wait_for(settled, timeout)
        if (reason := failed()) is not None:
            raise WorkerStartFailed(reason)
        if not in_time and not started():
            raise WorkerStartFailed(
                f"no worker was ready after {timeout:g} s (start_timeout): "
                "their imports take longer, or hang"
            )
        if roster.failure is not None:
            raise WorkerStartFailed(f"no worker can start:\n{roster.failure}")


def _refusal(connection: Connection, membership: Membership | None) -> str | None:
    """Say why there cannot be jobs here; None if there can."""
    if membership is not None:
        return _NO_STORE
    return _NOT_KEPT if connection.server_name == TEMPORARY else None


def _spec(settings: Settings, share: bool) -> KeeperSpec:
    """Describe the keeper of this application.

    A program without a file (a notebook, a REPL) does not share its keeper: no other process can
    import its functions.
    """
    functions = registered()
    in_main = any(f.module == "__main__" and not f.by_value for f in functions)
    has_file = getattr(sys.modules.get("__main__"), "__file__", None) is not None
    interactive = not has_file and multiprocessing.parent_process() is None and not runs_tests
    kept = settings.for_keeper()
    if not settings.was_given("log_level"):
        del kept["log_level"]  # The keeper logs less by itself (KEEPER_LOG_LEVEL).
    return KeeperSpec(
        tasks=list(settings.workers.tasks),
        modules=_importable(f.module for f in functions),
        main=running_main() if in_main else None,
        pool=settings.broker.pool,
        cores=settings.workers.cores,
        share=share and not interactive and not any(f.by_value for f in functions),
        settings=kept,
    )


def _importable(modules: Iterable[str]) -> list[str]:
    """Return the modules that a fresh interpreter with this ``sys.path`` would find."""
    found = []
    for name in dict.fromkeys(modules):
        top = name.partition(".")[0]
        if top not in ("__main__", "__mp_main__") and PathFinder.find_spec(top) is not None:
            found.append(name)
    return found
