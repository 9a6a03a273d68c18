"""Choose the jobs that run here: new ones, and those whose owner is gone."""

from __future__ import annotations

import asyncio
import logging

from jetmap.background import Background
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.errors import BrokerUnreachable, ClusterClosed, JetmapError, MapTimeout

from . import transitions
from .catalogue import Catalogue, is_adoptable
from .record import Record
from .running_job import GrantRoom, RunningJob
from .store import Conflict, Store

logger = logging.getLogger(__name__)

# Seconds between looks for workers that have the function.
WORKERS_SECONDS = 2.0


class JobRunner:
    """Run jobs, up to a number at once.

    Args:
        weight: One job's share of the cores, where a map has 1.
        most: Jobs that run at once; those that wait for workers, or are paused, do not count.
        grant_room: Enlarges a job's reservation in the store.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: Store,
        catalogue: Catalogue,
        *,
        weight: float,
        most: int,
        grant_room: GrantRoom,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._catalogue = catalogue
        self._weight = weight
        self._most = most
        self._grant_room = grant_room
        self._running: dict[str, RunningJob] = {}
        self._ready: dict[str, None] = {}  # Jobs that may run here, in order of arrival.
        self._background = Background("jobs that run here")
        self._closing = False

    @property
    def is_busy(self) -> bool:
        return bool(self._running or self._ready)

    def on_record(self, record: Record) -> None:
        """React to a changed record, whoever wrote it."""
        me = self._dispatcher.id
        if (running := self._running.get(record.id)) is not None:
            running.on_record(record)
        if record.state in ("queued", "running") and record.owner in (me, ""):
            self._ready.setdefault(record.id)
            self.fill()
        elif record.is_over:
            self._ready.pop(record.id, None)

    def adopt(self, alive: set[str]) -> None:
        """Take over jobs whose owner is gone, and resume own jobs that do not run.

        alive: dispatchers that hold a lease.
        """
        me = self._dispatcher.id
        for record in self._catalogue:
            ours = record.owner == me and record.state in ("queued", "running")
            if ours or is_adoptable(record, me, alive):
                self._ready.setdefault(record.id)
        self.fill()

    def fill(self) -> None:
        """Start ready jobs, up to the number that may run at once."""
        while self._ready and self._has_slot and not self._closing:
            job = next(iter(self._ready))
            del self._ready[job]
            record = self._catalogue.get(job)
            if record is None or job in self._running or record.state not in ("queued", "running"):
                continue
            running = self._running[job] = RunningJob(
                record,
                self._dispatcher,
                self._store,
                self._catalogue,
                weight=self._weight,
                grant_room=self._grant_room,
            )
            running.task = self._background.spawn(self._run(running), f"run job {job}")

    @property
    def _has_slot(self) -> bool:
        """Return whether one more job may run. Jobs that wait or are paused do not count."""
        return sum(not running.is_held for running in self._running.values()) < self._most

    def parked(self) -> list[tuple[str, int]]:
        """Return function and unfinished items of each job here that has no open map."""
        return [(r.function, r.total - r.done) for r in self.waiting() if r.total is not None]

    def waiting(self) -> list[Record]:
        """Return the jobs here that have no open map."""
        waiting = [running.record for running in self._running.values() if not running.has_map]
        waiting += filter(None, (self._catalogue.get(job) for job in self._ready))
        return waiting

    async def close(self) -> None:
        """Release every job, so that other processes take them over at once."""
        self._closing = True
        await self._background.close()
        if not self._store.connection.connected:
            return
        me = self._dispatcher.id
        for record in list(self._catalogue):
            if record.owner == me and record.state in ("queued", "running"):
                try:
                    seq = self._catalogue.seq(record.id)
                    await self._store.write(transitions.released(record), seq)
                except JetmapError as error:
                    logger.debug("cannot release job %s: %s", record.id, error)

    async def _run(self, running: RunningJob) -> None:
        job = running.record.id
        try:
            try:
                while await running.own():
                    while not await running.open():
                        await self._wait_for_workers(running)
                    if await running.run():
                        break
            finally:
                await running.close()
        except Conflict:
            logger.info("job %s now runs elsewhere", job)
        except (BrokerUnreachable, ClusterClosed) as error:
            logger.info("job %s: %s; it will be resumed", job, error)
            self._ready.setdefault(job)
        except MapTimeout:
            await running.fail(MapTimeout(transitions.timeout_message(running.record)))
        except JetmapError as error:
            await running.fail(error)
        finally:
            del self._running[job]
            if not self._closing:
                asyncio.get_running_loop().call_soon(self.fill)

    async def _wait_for_workers(self, running: RunningJob) -> None:
        """Pause a job without workers, and let others run meanwhile."""
        running.is_waiting = True
        self.fill()
        try:
            while True:
                left = running.seconds_left
                is_last = left is not None and left <= WORKERS_SECONDS
                await asyncio.sleep(left if left is not None and is_last else WORKERS_SECONDS)
                if self._has_slot or is_last:
                    return
        finally:
            running.is_waiting = False
