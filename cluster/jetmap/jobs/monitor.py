"""Hears what is stored of jobs, keeps this dispatcher's lease, and clears up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from jetmap.errors import BrokerUnreachable, JetmapError, NoRoom
from jetmap.nats.broker import Message, Subscription
from jetmap.nats.errors import JetStreamError
from jetmap.wire import subjects
from jetmap.wire.timing import JOB_BEAT_SECONDS, JOB_LEASE_SECONDS

from . import streams
from .catalogue import Catalogue, abandoned
from .record import read_record
from .removal import Removal
from .runner import Carrier
from .store import MARKER, Store

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 20.0
READ_AT_ONCE = 1000  # Records.
READS = 50  # Of those that were stored while others were read, at most.
LAG_SECONDS = 5.0  # How long a replica may lack what the leader has.
LAG_EVERY = 0.02


class Watch:
    """uploads: jobs whose input this process stores now."""

    def __init__(
        self, store: Store, me: str, catalogue: Catalogue, carrier: Carrier, removal: Removal
    ) -> None:
        self.is_loaded = False
        self.uploads: set[str] = set()
        self._store = store
        self._me = me
        self._catalogue = catalogue
        self._carrier = carrier
        self._removal = removal
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reading = asyncio.Lock()
        self._read_to = 0  # Of what has a higher number some may never have been heard of.
        self._has_lease = False
        self._leased = 0.0
        self._missing: dict[str, int] = {}  # Owners without a lease, and looks that found none.
        self._swept = time.monotonic()

    async def start(self) -> None:
        """Subscribes, and reads the records if there are any."""
        self._subscription = await self._store.watch(self._told)
        self._store.connection.on_reconnect(self._reconnected)
        try:
            if await streams.last(self._store.connection, self._store.pool) is not None:
                await self.load()
        except JetStreamError as error:
            logger.debug("jobs are not looked for: %s", error)
        self.spawn(self._beat())

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._has_lease and self._store.connection.connected:
            try:
                await self._store.drop_lease(self._me)
            except JetmapError as error:
                logger.debug("lease not dropped: %s", error)

    async def load(self) -> None:
        """Reads every record."""
        async with self._reading:
            if self.is_loaded:
                return
            while await self._read():
                pass
            self.is_loaded = True

    async def catch_up(self, until: int = 0) -> None:
        """Reads records that were stored since, of which nothing may have been heard.

        until: a sequence number that was told for a record; all up to there are read then.
        """
        deadline = time.monotonic() + LAG_SECONDS
        while self.is_loaded:
            async with self._reading:
                if until and self._read_to >= until:
                    return
                for _ in range(READS):
                    if not await self._read():
                        break
            if self._read_to >= until:
                return
            if time.monotonic() >= deadline:
                raise BrokerUnreachable("the records of jobs cannot be read as far as they go")
            await asyncio.sleep(LAG_EVERY)

    async def hold_lease(self) -> None:
        """Has a lease from now on, so that nobody else takes what this process owns."""
        if not self._has_lease or time.monotonic() - self._leased > JOB_LEASE_SECONDS / 2:
            await self._store.renew_lease(self._me, JOB_LEASE_SECONDS)
            self._has_lease = True
            self._leased = time.monotonic()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Has it run beside, until this is closed."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    # Inside

    async def _read(self) -> bool:
        """Reads the next records; False: there is none."""
        wanted = subjects.job_state(self._store.pool, "*")
        found = await self._store.fetch("JOBS", wanted, self._read_to, messages=READ_AT_ONCE)
        for stored in found:
            name = stored.subject.rpartition(".")[2]
            if not stored.data:
                self._catalogue.gone(name)
            else:
                self._catalogue.heard(read_record(stored.data, name), stored.seq)
            self._read_to = stored.seq
        return bool(found)

    async def _told(self, message: Message) -> None:
        headers = message.headers or {}
        kind, _, name = message.subject.split(".", 3)[3].partition(".")
        if kind != "state":
            return
        seq = int(headers.get("Nats-Sequence", 0))
        if MARKER in headers or not message.data:
            self._catalogue.gone(name)
            self.spawn(self._clear(name))
            return
        if not self.is_loaded:
            self.spawn(self.load())
        self._catalogue.heard(read_record(message.data, name), seq)

    async def _reconnected(self) -> None:
        """Records may have come meanwhile; or the streams are gone, with the broker's store."""
        if not self.is_loaded:
            return
        self._leased = 0.0
        last = await streams.last(self._store.connection, self._store.pool)
        if last is not None and last >= self._read_to:
            await self.catch_up()
            return
        async with self._reading:
            self.is_loaded = False
            self._read_to = 0
            self._catalogue.clear()
        if last is not None:  # Others have made them anew.
            await self.load()

    async def _clear(self, job: str) -> None:
        try:
            await self._store.remove(job)
        except JetmapError as error:
            logger.debug("what is left of job %s stays until the next sweep: %s", job, error)

    async def _beat(self) -> None:
        """Every two seconds: the lease, and jobs whose owner has none any more."""
        while True:
            await asyncio.sleep(JOB_BEAT_SECONDS)
            try:
                if self._has_lease or self._carrier.is_busy:
                    self._leased = 0.0
                    try:
                        await self.hold_lease()
                    except NoRoom as error:  # A sweep, below, may make some.
                        logger.debug("the lease is not renewed: %s", error)
                if self.is_loaded:
                    await self.catch_up()
                    await self._look_for_orphans()
                    if time.monotonic() - self._swept >= SWEEP_SECONDS:
                        self._swept = time.monotonic()
                        await self._sweep()
            except JetmapError as error:
                logger.debug("jobs are looked after again later: %s", error)
            except Exception:
                # Without its lease this process would lose its jobs.
                logger.exception("looking after jobs failed; tried again in a moment")

    async def _look_for_orphans(self) -> None:
        owners = {r.owner for r in self._catalogue if not r.is_over} - {self._me, ""}
        alive = set()
        for owner in owners:
            if await self._store.has_lease(owner):
                alive.add(owner)
        # Twice: after an outage of the broker its owners need a moment to renew theirs.
        self._missing = {o: self._missing.get(o, 0) + 1 for o in owners - alive}
        alive |= {owner for owner, looks in self._missing.items() if looks < 2}
        self._carrier.adopt(alive)
        for record in self._catalogue:
            if abandoned(record, self._me, alive, self.uploads):
                # Unless it has become a job meanwhile, of which nothing was heard yet.
                await self._removal.bury(record, self._catalogue.seq(record.id))

    async def _sweep(self) -> None:
        """Removes inputs and outcomes of jobs that are not there any more; forgets those whose
        expiry was not heard of, and those that were removed a while ago."""
        now = time.time()
        await self._store.spare.fill()
        there_are = await self._store.jobs_in("JOBS")
        for record in self._catalogue:
            if record.id not in there_are and (await self._store.read(record.id))[1] == 0:
                self._catalogue.gone(record.id)  # It was removed when there was no room to say so.
                continue
            readable = record.state != "unreadable"
            if readable and record.is_over and now > record.updated + record.ttl:
                there, seq = await self._store.read(record.id)
                if there is not None and there.state == "deleted":
                    await self._store.forget(record.id, seq)
                    there = None
                if there is None:
                    self._catalogue.gone(record.id)
        for kind in ("INPUT", "OUTCOMES"):
            for job in await self._store.jobs_in(kind):
                known = self._catalogue.get(job)
                if known is not None and known.state != "deleted":
                    continue
                there, _ = await self._store.read(job)
                if there is None or there.state == "deleted":
                    await self._store.remove(job)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("looking after jobs failed", exc_info=error)
