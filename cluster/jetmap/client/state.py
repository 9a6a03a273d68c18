"""The state of a cluster: of this process's maps, and of the pool as far as it is known here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jetmap.dispatch.memory import Memory
from jetmap.errors import ClusterClosed
from jetmap.functions.task import find
from jetmap.settings import Settings
from jetmap.wire.controls import KEEP, PoolControl

from . import owner

if TYPE_CHECKING:
    from jetmap.dispatch.costs import Cost
    from jetmap.dispatch.stats import Stats
    from jetmap.monitoring.pool_watch import PoolWatch
    from jetmap.wire.counts import PoolCounts
    from jetmap.wire.presence import FunctionInfo

    from .session import Session

FORKED = "this cluster was started before this process was forked; start one here"
_NOT_STARTED = (
    "the cluster is not started, or is closed: use it in 'async with Cluster()', or start one with "
    "'await Cluster.start()'"
)


class ClusterState:
    """The part of a cluster that asks, and steers the functions of its pool."""

    _given: dict[str, Any]
    _base: Settings | None
    _settings: Settings | None
    _inline: bool
    _trust_pickle: bool | None
    _opened: Session | None
    _inline_memory: Memory
    _loop: asyncio.AbstractEventLoop | None
    _pid: int

    def info(self, name: str) -> FunctionInfo | None:
        """Return the newest offer's description of a function; None if no agent offers it now."""
        if self._inline:
            function = find(name)
            return None if function is None else function.info()
        return self._session.dispatcher.roster.offers(name).info

    @property
    def pool_counts(self) -> PoolCounts:
        """Counters that the agents announce, summed over the pool."""
        if self._inline:
            from jetmap.wire.counts import PoolCounts

            return PoolCounts()
        return self._session.dispatcher.roster.counts

    @property
    def watch(self) -> PoolWatch:
        """View of the whole pool, for dashboards and metrics. Raises ClusterClosed if inline."""
        if self._inline:
            raise ClusterClosed("inline=True runs functions in this process; there is no pool")
        return self._session.watch

    @property
    def control(self) -> PoolControl:
        """The functions, and the pool, that people have paused or limited."""
        return PoolControl() if self._inline else self._session.dispatcher.steering.control

    async def steer(
        self, function: str | None, *, paused: bool | None = None, max_parallel: int | None = KEEP
    ) -> PoolControl:
        """Pause, resume or limit a function, or pause or resume the pool, for all its callers.

        Args:
            function: None: the whole pool.
            paused: None: as it is.
            max_parallel: Cores that the function may use at most, over the whole pool; None: no
                limit but that of its code; KEEP: as it is.

        Returns:
            Everything that is paused or limited now.

        Raises:
            UnknownFunction: No worker ever announced this function.
            BrokerUnreachable: The broker does not answer, or does not allow it.
        """
        self._check()
        if self._inline:
            raise ClusterClosed("inline=True runs functions in this process; there is no pool")
        dispatcher = self._session.dispatcher
        if function is not None and function not in dispatcher.steering.control.functions:
            await dispatcher.agents.require_known(function)
        return await dispatcher.steering.change(function, paused=paused, max_parallel=max_parallel)

    @property
    def where(self) -> str:
        """The broker's address, without secrets; empty with ``inline=True``."""
        return "" if self._inline else self._session.connection.where

    @property
    def stats(self) -> Stats:
        """Counters of this process's maps."""
        if self._inline:
            from jetmap.dispatch.stats import Stats

            return Stats()
        return self._session.dispatcher.stats

    @property
    def costs(self) -> Mapping[str, Cost]:
        """Costs of each function's items, as this process has learnt them."""
        return {} if self._inline else self._session.dispatcher.scheduler.costs

    @property
    def open_maps(self) -> int:
        """Number of this process's maps that are open or wait for a worker, without jobs."""
        return 0 if self._inline else self._session.dispatcher.open_maps

    @property
    def memory(self) -> Memory:
        """Account of the memory that maps, and a gateway's request bodies, hold in this process."""
        return self._inline_memory if self._inline else self._session.dispatcher.memory

    @property
    def max_item(self) -> int:
        """Bytes that one encoded item or value may have."""
        return int(self.settings.limits.max_item_bytes)

    @property
    def trusts(self) -> bool:
        """True if pickles that workers send back are loaded. A gateway loads none all the same."""
        if self._inline:
            return True
        if self._opened is not None and self._opened.is_embedded:
            return True
        trusted = self._trust_pickle
        return self.settings.workers.trust_pickle if trusted is None else bool(trusted)

    @property
    def keeper_pid(self) -> int | None:
        """Process id of the keeper of an embedded cluster; None for any other."""
        return self._opened.keeper_pid if self._opened is not None else None

    @property
    def connected(self) -> bool:
        """True while the broker is reachable; always, with ``inline=True``."""
        return self._inline or (self._opened is not None and self._opened.connection.connected)

    @property
    def is_started(self) -> bool:
        """True from the start of the cluster until it is closed."""
        return self._loop is not None

    @property
    def is_foreign(self) -> bool:
        """True if the cluster was started before this process was forked: its parent owns it."""
        return self._pid != owner.pid and self._loop is not None

    @property
    def settings(self) -> Settings:
        """The settings in use; loaded at the first access."""
        if self._settings is None:
            spelled = {"nats_url": "url"}
            self._settings = Settings.load(lambda name: spelled.get(name, name), **self._given)
            if self._base is not None:
                checked = {name: self._settings.get(name) for name in self._given}
                self._settings = self._base.replace(**checked)
        return self._settings

    @property
    def _session(self) -> Session:
        # (As ``is_foreign``, of one that was started: each request asks this several times.)
        if self._opened is None or self._pid != owner.pid:
            raise ClusterClosed(FORKED if self.is_foreign else _NOT_STARTED)
        return self._opened

    def _check(self) -> None:
        """Raise ClusterClosed unless the cluster is started, in this process and event loop."""
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
