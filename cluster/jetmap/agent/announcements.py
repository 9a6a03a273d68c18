"""Announce an agent to its pool: its functions, its workers, its counters, and what is wrong."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Hashable, Sequence

import msgspec

from jetmap.logs import Limited
from jetmap.machine import boot_id, memory, memory_kills
from jetmap.nats.answers import JetStreamError
from jetmap.nats.errors import Forbidden
from jetmap.wire import counts
from jetmap.wire.memory_files import coarse, room
from jetmap.wire.messages import (
    ANNOUNCEMENT_BYTES,
    ChunkHead,
    Crash,
    Ping,
    encode,
)
from jetmap.wire.presence import EMPTY, Presence, at_time, pack_cells
from jetmap.wire.protocol import DIGEST_PROTOCOL, OLDEST_PROTOCOL, PROTOCOL
from jetmap.wire.versions import package_versions, python_version
from jetmap.wire.worker_start import Broken, Ready, StartFailed

from .code import CodeFile
from .imports import Imports
from .neighbours import NeighbourDispatchers
from .offer import Offer
from .options import AgentOptions
from .reload import Reload
from .slot import Slot

logger = logging.getLogger(__name__)

MEMORY_SECONDS = 10.0  # Seconds between two looks at the workers' memory.
REST_MEMORY_SECONDS = 60.0  # Seconds between two of them while the agent rests.
NEWS_SECONDS = 30.0  # Seconds without a change at any core after which an agent rests.
# Characters of a reason, and number of broken imports, in an announcement that must be short.
BRIEF_REASON, BRIEF_BROKEN = 1000, 100

# Why the agent serves nothing. A program that raises the reason itself filters this logger.
unready = logging.getLogger("jetmap.agent.unready")


class Announcements:
    """The state of one agent as its pool sees it.

    Attributes:
        failed: Why no worker can start.
        refused: Why the broker does not let this agent take chunks.
        served: The offer whose chunks this agent pulls.
        draining: Whether it takes no more chunks.
        gone: Whether it is about to end.
        round_trip: Seconds to the broker and back; 0 if it is near.
    """

    def __init__(
        self,
        agent: str,
        options: AgentOptions,
        slots: Sequence[Slot],
        offer: Offer,
        imports: Imports,
        reload: Reload,
        neighbours: NeighbourDispatchers,
    ) -> None:
        self.counts = counts.AgentCounts()
        self.failed: str | None = None
        self.round_trip = 0.0
        self.refused: Forbidden | JetStreamError | None = None
        self.served = ""
        self.draining = self.gone = False
        self._agent = agent
        self._options = options
        self._slots = slots
        self._offer = offer
        self._imports = imports
        self._reload = reload
        self._neighbours = neighbours
        # Each crash costs a worker's start, but there may be a hundred cores.
        self._crash_log = Limited(logger, "crashes", rate=5, burst=20)
        self._code = CodeFile(options.code)
        self._machine = boot_id()
        self._memory, self._memory_limit, self._memory_at = 0, memory(), -MEMORY_SECONDS
        self._room = -1
        self._kills = memory_kills()
        self._announced = ""  # Digest of the functions that were announced last.
        self._has_older_readers = False
        self._message = b""  # The latest announcement.
        self._mark: Hashable = None  # Changes with everything in it but its time.
        self._cores: Hashable = None  # The part of the mark that is about the cores.
        self._news_at = 0.0  # When a core has last changed.

    def on_news(self) -> None:
        """Record that something has happened."""
        self._news_at = time.monotonic()

    def rests(self, now: float) -> bool:
        """Return whether nothing has happened for a while, so that what is measured stays."""
        return now - self._news_at > NEWS_SECONDS

    def on_ready(self, slot: int, ready: Ready) -> None:
        """Record what the worker of this slot has loaded."""
        self.failed = None
        self._reload.watch(ready.files)
        self._code.on_loaded(slot, ready)

    def on_worker_failed(self, failure: StartFailed) -> None:
        self.counts.start_failures += 1
        self._reload.watch(failure.files)
        text = failure.traceback.strip() or failure.message
        if text != self.failed:
            self.failed = text
            unready.error("workers cannot start; trying again with growing pauses:\n%s", text)

    def on_import_failed(self, broken: Broken, *, fatal: bool) -> None:
        if self._imports.on_failed(broken, time.monotonic(), fatal=fatal):
            # The user of an embedded agent sees it as an exception.
            log = logger.info if self._options.embedded else logger.warning
            if broken.loader:
                log("%s cannot be called: %s", broken.home.rpartition(":")[2], broken.text)
            else:
                log("%s cannot be imported: %s", broken.home, broken.text)
        self._reload.watch(broken.files)

    def on_refused(self, error: Forbidden | JetStreamError) -> None:
        """Record that the broker will not let this agent take chunks until it is reconfigured."""
        if self.refused is None:
            unready.error("no chunks: %s", error)
        self.refused, self.served = error, ""

    def on_batch_crash(self, head: ChunkHead, crash: Crash, items: int) -> None:
        """Count and log the death of a worker with several items; head: of the first's chunk."""
        cause = self._count_crash(head, crash)
        first = f" from item {crash.item} of map {head.map} on" if crash.item is not None else ""
        text = "%s: a call of %d items%s cost its worker (%s); they are computed again in halves"
        self._crash_log.log(logging.WARNING, text, head.function, items, first, cause)

    def _count_crash(self, head: ChunkHead, crash: Crash) -> str:
        """Return the cause of a crash, as it is counted."""
        cause = counts.crash_cause(crash)
        self.counts.crash(head.function, cause)
        if cause == "SIGKILL" and (kills := memory_kills()) > self._kills:
            self._kills = kills
            self.counts.memory_kills += 1
        return cause

    def on_crash(self, head: ChunkHead, crash: Crash) -> None:
        """Count and log the death of a worker with an item."""
        cause = self._count_crash(head, crash)
        hint = "; perhaps it ran out of memory" if cause == "SIGKILL" else ""
        item = "before its first item" if crash.item is None else f"item {crash.item}"
        text = "%s, %s of map %s: %s%s"
        self._crash_log.log(
            logging.WARNING, text, head.function, item, head.map, crash.message, hint
        )

    def on_ping(self, ping: Ping) -> bool:
        """Record that a dispatcher asks for an announcement. Returns whether this agent is meant.

        One of an older release knows functions and cores only as each announcement lists them, and
        nobody says when the last such dispatcher has gone: it is so until this agent ends.
        """
        if ping.protocol < DIGEST_PROTOCOL:
            self._has_older_readers = True
        if ping.agent == self._agent:
            self._announced = ""
        return ping.agent in ("", self._agent)

    def message(self, pending: int, limit: int) -> bytes:
        """Return the announcement, of at most ``limit`` bytes if that is possible.

        It has functions if those have changed, or somebody has asked. pending: backlog of the main
        lane.
        """
        now = time.monotonic()
        mark = self._marked(pending, limit, now)
        if mark == self._mark and not self._has_older_readers:
            return at_time(self._message, now)
        self._mark, self._message = mark, self._encoded(pending, limit)
        return self._message

    def _marked(self, pending: int, limit: int, now: float) -> Hashable:
        """Return a value that changes with everything in an announcement but its time."""
        counts, offer = self.counts, self._offer
        cores = tuple([slot.mark for slot in self._slots])
        if cores != self._cores:
            self._cores, self._news_at = cores, now
        broken = self._imports.broken(now)
        return (
            *(cores, pending, limit, self._used_memory(), self._room),
            *(self.served, self.draining, self.gone, self.failed, self.refused, self.round_trip),
            *(offer.name, offer.version, offer.rank, offer.digest, offer.digest == self._announced),
            *(counts.changes, counts.recycled, counts.start_failures, counts.memory_kills),
            *(self._reload.failure, self._neighbours.name, tuple(broken.items())),
        )

    def _encoded(self, pending: int, limit: int) -> bytes:
        presence = self.presence(pending)
        if self._has_older_readers:
            presence.listed, presence.details = presence.workers, EMPTY
        elif presence.digest == self._announced:
            presence.functions = []
            limit = min(limit, ANNOUNCEMENT_BYTES)
        self._announced = presence.digest
        message = encode(presence)
        for shorten in (omit_cores, shorten_texts):
            if len(message) > limit:
                shorten(presence)
                message = encode(presence)
        return message

    def presence(self, pending: int) -> Presence:
        """Return the announcement, whole. pending: backlog of the main lane."""
        options, offer, slots = self._options, self._offer, self._slots
        running, cells = pack_cells(slot.state for slot in slots)
        return Presence(
            agent=self._agent,
            host=options.host,
            pid=os.getpid(),
            pool=options.pool,
            # Chunks come only if there is a consumer that this agent may pull from.
            offer=offer.name if self.served == offer.name else "",
            version=offer.version,
            rank=offer.rank,
            cores=len(slots),
            ready=sum(slot.is_ready for slot in slots) if self.served else 0,
            busy=sum(slot.held is not None for slot in slots),
            draining=self.draining,
            gone=self.gone,
            functions=list(offer.functions.values()),
            listed=[],
            pending=max(0, pending),
            embedded=options.embedded,
            failure=self.failed or (str(self.refused) if self.refused else self._reload.failure),
            trusts=options.setup.trust,
            counted=msgspec.Raw(encode(counts.rows(self.counts.items))),
            crashes=counts.rows(self.counts.crashes),
            recycled=self.counts.recycled,
            start_failures=self.counts.start_failures,
            local=options.local if self.served else "",
            broken=self._imports.broken(time.monotonic()),
            python=python_version(),
            packages=package_versions(),
            machine=self._machine,
            protocol=PROTOCOL,
            oldest_protocol=OLDEST_PROTOCOL,
            memory=self._used_memory(),
            memory_limit=self._memory_limit,
            memory_kills=self.counts.memory_kills,
            round_trip=self.round_trip,
            loading=next((slot.loader for slot in self._slots if slot.loader), ""),
            memory_socket=self._neighbours.name,
            digest=offer.digest,
            running=running,
            cells=cells,
            details=msgspec.Raw(encode([slot.detail() for slot in slots])),
            room=self._room,
            now=time.monotonic(),
        )

    def _used_memory(self) -> int:
        """Return the bytes that the workers use, as of a few seconds ago."""
        now = time.monotonic()
        seconds = REST_MEMORY_SECONDS if self.rests(now) else MEMORY_SECONDS
        if now - self._memory_at >= seconds:
            self._memory_at = now
            self._memory = sum(slot.memory() for slot in self._slots)
            self._room = coarse(room())
        return self._memory


def omit_cores(presence: Presence) -> None:
    """Leave only the state and function of each core in an announcement."""
    presence.listed, presence.details = [], EMPTY


def shorten_texts(presence: Presence) -> None:
    """Shorten an announcement for a broker with small messages: no docs, schemas or counters."""
    presence.functions = [
        msgspec.structs.replace(f, doc="", item={}, value={}, kwargs={}, untyped=[])
        for f in presence.functions
    ]
    presence.failure = presence.failure[-BRIEF_REASON:] if presence.failure else None
    broken = list(presence.broken.items())[:BRIEF_BROKEN]
    presence.broken = {home: reason[-BRIEF_REASON:] for home, reason in broken}
    presence.counted, presence.crashes = EMPTY, []
