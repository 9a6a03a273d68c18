"""Track the records of jobs, keep this dispatcher's lease, and clean up."""

from __future__ import annotations

import asyncio
import logging
import time

from jetmap.background import Background
from jetmap.errors import BrokerUnreachable, JetmapError, NoRoom
from jetmap.nats.answers import JetStreamError
from jetmap.nats.broker import Message, Subscription
from jetmap.nats.provision import STREAM_NOT_FOUND
from jetmap.wire import subjects
from jetmap.wire.timing import JOB_BEAT_SECONDS, JOB_LEASE_SECONDS

from . import streams
from .catalogue import Catalogue, is_abandoned
from .record import Record, read_record
from .removal import Removal
from .runner import JobRunner
from .store import MARKER, Store

logger = logging.getLogger(__name__)

# Seconds between sweeps.
SWEEP_SECONDS = 20.0
# Seconds that the broker has to remove an expired job; then a sweep does.
EXPIRY_GRACE = 60.0
# Records read in one request.
READ_AT_ONCE = 1000
# Requests in one catch-up, which must end even while records keep coming.
READS = 50
# Seconds that a replica may lag behind the leader.
LAG_SECONDS = 5.0
# Seconds between looks at a replica that lags.
LAG_EVERY = 0.02


class JobMonitor:
    """Watch the records of one pool's jobs.

    uploads: jobs whose input this process is storing.
    """

    def __init__(
        self, store: Store, me: str, catalogue: Catalogue, runner: JobRunner, removal: Removal
    ) -> None:
        self.is_loaded = False
        self.uploads: set[str] = set()
        self._store = store
        self._me = me
        self._catalogue = catalogue
        self._runner = runner
        self._removal = removal
        self._subscription: Subscription | None = None
        self.background = Background("jobs")
        self._reading = asyncio.Lock()
        self._read_to = 0  # Records up to here were read; later ones may be unknown.
        self._has_lease = False
        self._leased = 0.0
        self._missing: dict[
            str, int
        ] = {}  # Owners without a lease, and how often in a row it was missing.
        self._swept = time.monotonic()
        self._overdue: dict[str, float] = {}  # When a job that is over has been kept too long.

    async def start(self) -> None:
        """Subscribe to the records, and read those that exist."""
        self._subscription = await self._store.watch(self._on_stored)
        self._store.connection.on_reconnect(self._on_reconnect)
        try:
            if await streams.last(self._store.connection, self._store.pool) is not None:
                await self.load()
        except JetStreamError as error:
            logger.debug("cannot look for jobs: %s", error)
        self.background.spawn(self._beat(), "watch owners")

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        await self.background.close()
        if self._has_lease and self._store.connection.connected:
            try:
                await self._store.drop_lease(self._me)
            except JetmapError as error:
                logger.debug("lease not dropped: %s", error)

    async def load(self) -> None:
        """Read every record."""
        async with self._reading:
            if self.is_loaded:
                return
            while await self._read():
                pass
            self.is_loaded = True

    async def catch_up(self, until: int = 0) -> None:
        """Read records whose notification may have been lost.

        until: the sequence number of a stored record; every record up to it is read.
        Raises BrokerUnreachable if a replica lags too far behind.
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
                raise BrokerUnreachable(
                    "cannot read the newest records of jobs: a replica lags behind"
                )
            await asyncio.sleep(LAG_EVERY)

    async def hold_lease(self) -> None:
        """Take or renew the lease, so that nobody else takes over this process's jobs."""
        if not self._has_lease or time.monotonic() - self._leased > JOB_LEASE_SECONDS / 2:
            await self._store.renew_lease(self._me, JOB_LEASE_SECONDS)
            self._has_lease = True
            self._leased = time.monotonic()

    # Inside

    async def _read(self) -> bool:
        """Read the next records; return False if there are no more."""
        wanted = subjects.job_state(self._store.pool, "*")
        found = await self._store.fetch("JOBS", wanted, self._read_to, messages=READ_AT_ONCE)
        for stored in found:
            name = stored.subject.rpartition(".")[2]
            if not stored.data:
                self._catalogue.on_removed(name)
            else:
                self._catalogue.on_record(read_record(stored.data, name), stored.seq)
            self._read_to = stored.seq
        return bool(found)

    async def _on_stored(self, message: Message) -> None:
        headers = message.headers or {}
        kind, _, name = message.subject.split(".", 3)[3].partition(".")
        if kind != "state":
            return
        seq = int(headers.get("Nats-Sequence", 0))
        if MARKER in headers or not message.data:
            self._catalogue.on_removed(name)
            self.background.spawn(self._clear(name), "remove an expired job")
            return
        if not self.is_loaded:
            self.background.spawn(self.load(), "read the records")
        self._catalogue.on_record(read_record(message.data, name), seq)

    async def _on_reconnect(self) -> None:
        """Read what was missed, or start again if the broker has lost its streams."""
        self._leased = 0.0
        await self._follow()

    async def _follow(self) -> None:
        """Read what was missed; forget all records if their stream was made anew."""
        if not self.is_loaded:
            return
        last = await streams.last(self._store.connection, self._store.pool)
        if last is not None and last >= self._read_to:
            await self.catch_up()
            return
        async with self._reading:
            self.is_loaded = False
            self._read_to = 0
            self._catalogue.clear()
        if last is not None:  # Somebody else has created them again.
            await self.load()

    async def _clear(self, job: str) -> None:
        try:
            await self._store.remove(job)
        except JetmapError as error:
            logger.debug("cannot remove all of job %s; the next sweep tries again: %s", job, error)

    async def _beat(self) -> None:
        """Renew the lease, and look for jobs whose owner has lost its own, every two seconds."""
        while True:
            await asyncio.sleep(JOB_BEAT_SECONDS)
            try:
                if self._has_lease or self._runner.is_busy:
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
                logger.debug("cannot look after jobs; trying again later: %s", error)
                await self._restore(error)
            except Exception:
                # Without its lease this process would lose its jobs.
                logger.exception("looking after jobs failed; trying again in a moment")

    async def _restore(self, error: JetmapError) -> None:
        """Make streams anew if somebody has removed one, which may be why this failed."""
        is_missing = isinstance(error, JetStreamError) and error.err_code == STREAM_NOT_FOUND
        if is_missing or (self.is_loaded and await self._store.is_gone("JOBS")):
            await self._store.restore()

    async def _look_for_orphans(self) -> None:
        owners = {r.owner for r in self._catalogue if not r.is_over} - {self._me, ""}
        alive = set()
        for owner in owners:
            if await self._store.has_lease(owner):
                alive.add(owner)
        # Twice: after an outage of the broker its owners need a moment to renew theirs.
        self._missing = {o: self._missing.get(o, 0) + 1 for o in owners - alive}
        alive |= {owner for owner, looks in self._missing.items() if looks < 2}
        self._runner.adopt(alive)
        for record in self._catalogue:
            if is_abandoned(record, self._me, alive, self.uploads):
                # Unless it was queued meanwhile, which the sequence number tells.
                await self._removal.tombstone(record, self._catalogue.seq(record.id))

    async def _sweep(self) -> None:
        """Remove what is left of removed jobs, and forget jobs whose expiry notice was lost."""
        now = time.time()
        await self._follow()
        await self._store.filler.fill()
        there_are = await self._store.jobs_in("JOBS")
        for record in self._catalogue:
            if record.id not in there_are and (await self._store.read(record.id))[1] == 0:
                # Removed while the store had no room for a tombstone.
                self._catalogue.on_removed(record.id)
                continue
            readable = record.state != "unreadable"
            if readable and record.is_over and now > record.updated + record.ttl:
                there, seq = await self._store.read(record.id)
                if there is not None and there.state == "deleted":
                    await self._store.forget(record.id, seq)
                    there = None
                if there is None:
                    self._catalogue.on_removed(record.id)
                elif there.is_over and await self._is_overdue(there):
                    # A broker without room cannot expire records: it writes a marker for each.
                    await self._removal.tombstone(there, seq)
        self._overdue = {job: at for job, at in self._overdue.items() if job in there_are}
        for kind in ("INPUT", "OUTCOMES"):
            for job in await self._store.jobs_in(kind):
                known = self._catalogue.get(job)
                if known is not None and known.state != "deleted":
                    continue
                there, _ = await self._store.read(job)
                if there is None or there.state == "deleted":
                    await self._store.remove(job)

    async def _is_overdue(self, record: Record) -> bool:
        """Return whether the broker has kept a job for longer than it should.

        The broker's clock decides: another host's, or this one's, may be wrong by days.
        """
        now = time.monotonic()
        if now < self._overdue.get(record.id, 0.0):
            return False
        left = record.ttl + EXPIRY_GRACE - await self._store.age(record.id)
        self._overdue[record.id] = now + left
        return left < 0
