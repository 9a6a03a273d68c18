"""The dispatcher: the authority over the chunks of its maps, in the caller's process.

It acts, and others decide: ``MapAdmission`` whether a map may begin, ``Scheduler`` which chunk goes
out next, each map's ``Ledger`` which outcomes are new and which items go out again, ``Recovery``
which chunks are lost::

    Dispatcher --> MapAdmission, Restoring --> Recovery
        |
        +--> Sender --> Outbox --> the broker
                |
                +--> OpenMaps --> Scheduler, each map's Ledger
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from jetmap.background import Background
from jetmap.errors import ClusterClosed, JetmapError, MapCancelled, MapTimeout
from jetmap.nats import jetstream
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.settings import Settings
from jetmap.wire import pool_streams, subjects
from jetmap.wire.constants import NUMBER
from jetmap.wire.messages import (
    SHARE_BYTES,
    SHARED_FACTOR,
    Claim,
    ClaimAnswer,
    Delivery,
    PartRequest,
    Report,
    encode,
)
from jetmap.wire.presence import Presence
from jetmap.wire.protocol import HURRY_PROTOCOL
from jetmap.wire.seals import Sealer

from .admission import MapAdmission
from .agent_tracker import AgentTracker
from .backlog import Backlog, Parked
from .company import Company
from .constants import KeptConstants
from .costs import Cutting
from .ledger import Ledger, Seen
from .map_spec import MapSpec
from .maps import OpenMaps
from .memory import Memory
from .neighbours import NeighbourAgents
from .open_map import OpenMap
from .outbox import Outbox
from .outcomes import decoded
from .parts import UNWANTED, ServedParts
from .recovery import TICK, Recovery
from .restoring import Restoring
from .roster import idle_cores
from .scheduler import Scheduler
from .sender import Sender
from .sources import Source
from .stats import Stats, refusal_reason
from .steering import Steering

if TYPE_CHECKING:
    from jetmap.tracing import MapTraces

logger = logging.getLogger(__name__)

CONFIRM_BYTES = 8 << 20  # Bytes of values in workers' memory that are confirmed at once.

_delivery = msgspec.msgpack.Decoder(Delivery).decode
_part_request = msgspec.msgpack.Decoder(PartRequest).decode
_claim = msgspec.msgpack.Decoder(Claim).decode


@dataclass(frozen=True)
class DispatchOptions:
    """The options of a dispatcher."""

    settings: Settings
    sealer: Sealer | None = None  # Seals chunks that bring functions to this user's `jetmap up`.
    announce_seconds: float = 1.0  # Seconds to wait for an announcement of a function.

    @property
    def pool(self) -> str:
        return self.settings.broker.pool


class Dispatcher:
    """Cut maps into chunks, publish them, and deliver exactly one outcome for each item."""

    def __init__(self, connection: Broker, options: DispatchOptions) -> None:
        self.id = subjects.new_id()
        self.stats = stats = Stats()
        self.traces: MapTraces | None = None  # If this process has a tracer provider.
        # Takes in the reports that came past the broker: a crash must not find them unread.
        self.before_results: Callable[[], None] | None = None
        self.memory = Memory(options.settings.limits.memory_budget())
        self.agents = AgentTracker(
            connection,
            options.pool,
            self._on_presence,
            self._on_quiet_presence,
            self._is_quiet,
            options.sealer,
        )
        self.roster = roster = self.agents.roster
        self._connection = connection
        self._options = options
        self._inbox = connection.inbox(self.id)
        self._background = background = Background("dispatcher")
        self._subscriptions: list[Subscription] = []
        self._numbers = itertools.count(1)
        self._fitted = -1  # ``roster.changes`` when chunks were last fitted to the pool.
        self._closed = False
        self._company = Company(self.id)
        settings = options.settings
        self._cutting = cutting = Cutting.of(settings.chunks)
        self._scheduler = self.scheduler = scheduler = Scheduler(cutting, self.memory.limit // 4)
        self._maps = self.maps = maps = OpenMaps(scheduler, roster, stats)
        self._neighbours = neighbours = NeighbourAgents(
            self._inbox, settings.chunks.arena(), self._on_neighbours
        )
        self._large = neighbours.least
        scheduler.shared = neighbours
        self._outbox = Outbox(
            connection, settings, cutting, self._inbox, background, options.sealer
        )
        self._sender = Sender(maps, scheduler, self._outbox, roster, stats, background, neighbours)
        self._parts = ServedParts(maps, self.memory)
        self.steering = Steering(
            connection,
            options.pool,
            self.id,
            maps,
            on_limited=scheduler.on_limited,
            on_change=self._sender.pump_soon,
            on_other=self._on_other,
        )
        self.constants = maps.constants = KeptConstants(connection, self._inbox)
        self._recovery = Recovery(roster, time.monotonic())
        self._restoring = Restoring(
            maps, self._recovery, self._outbox, self._sender, stats, background
        )
        self._backlog = Backlog(maps, scheduler, roster)
        self._admission = MapAdmission(
            connection, self.agents, settings.limits.max_open_maps, options.announce_seconds
        )

    # Life cycle

    async def start(self) -> None:
        """Subscribe, create the work stream if it is missing, and ask agents to announce
        themselves.
        """
        subscribe = self._connection.subscribe
        self._subscriptions = [
            await subscribe(f"{self._inbox}.result", self._on_result, direct=True),
            await subscribe(f"{self._inbox}.claim", self._on_claim),
            await subscribe(f"{self._inbox}.ack.*", self._sender.on_ack, direct=True),
            await subscribe(f"{self._inbox}.part", self._on_part_request),
            await subscribe(f"{self._inbox}.values.>", self._on_values, direct=True),
            await self.agents.subscribe(),
        ]
        self._connection.on_reconnect(self._on_reconnect)
        options = self._options
        await pool_streams.ensure_stream(
            self._connection, options.pool, options.settings.stream, patience=jetstream.PATIENCE
        )
        await self.steering.start()
        await self.agents.ping()
        self._background.spawn(self._check_lost(), "check for lost chunks")

    async def close(self) -> None:
        """Withdraw every open map; its reader sees ClusterClosed."""
        if self._closed:
            return
        self._closed = True
        self._sender.close()
        for run in self._maps:
            self._maps.end(run, "withdrawn", ClusterClosed("the cluster was closed"))
        await self._sender.pump()
        await self.steering.close()
        if self._connection.connected:
            await self._outbox.confirm_now()
            await self._background.wait("withdraw", 2)
        self._outbox.close()
        await self.constants.close()
        await self._background.close()
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        self._neighbours.leave()

    async def end_all(self, error: JetmapError) -> None:
        """End every open map of a caller with this error. Jobs stay open: they survive it."""
        for run in self._maps:
            if subjects.job_of(run.id) is None:
                self._maps.end(run, "failed", error)
        await self._sender.pump()

    def count_parked(self, parked: Parked) -> None:
        """Count work outside of open maps as backlog too, such as jobs that wait for workers."""
        self._backlog.parked = parked

    # Maps

    async def open(
        self,
        spec: MapSpec,
        source: Source,
        *,
        id: str | None = None,
        seen: Seen | None = None,
    ) -> OpenMap:
        """Start a map.

        Args:
            id: Id of a job's map, which does not count towards max_open_maps.
            seen: The job's items that have their outcome in the store.

        Raises UnknownFunction, NoWorkers, WorkerStartFailed, TooManyMaps, ClusterClosed.
        """
        if not self._may_begin(spec, is_job=id is not None):
            await self._admit(spec, is_job=id is not None)
        spec = spec.completed(self.roster.offers(spec.function).info)
        settings = self._options.settings
        attempts = spec.attempts or settings.chunks.attempts
        run = OpenMap(
            id or f"{self.id}_{next(self._numbers)}",
            spec,
            source,
            Ledger(spec.format, attempts, seen, self._recovery.quarantine),
            self._scheduler.cost(spec.function),
            memory=self.memory,
            max_buffer=settings.limits.max_buffer_bytes,
            room=self._connection.room - spec.overhead,
            large=self._large,
            on_leave=self._on_reader_left,
            on_room=self._sender.pump_soon,
        )
        if self.steering.is_active or spec.together is not None:
            run.gate = self.steering.gate(spec.function, spec.together)
        run.opened = time.monotonic()
        if self.traces is not None:
            submitted = None if id is None else spec.submitted
            run.span = self.traces.begin(run.id, spec.function, source.total, submitted)
        self._maps.add(run)
        source.wake = functools.partial(self._on_source_woke, run)
        if spec.timeout is not None:
            run.timer = asyncio.get_running_loop().call_later(
                spec.timeout, self._on_timeout, run, spec.timeout
            )
        try:
            if self._company.must_speak(run.opened):
                await self.steering.speak()
            await self._sender.pump()
            if not run.ledger.flights:  # It may have no items.
                self._maps.check_end(run)
        except BaseException:
            await self._end(run, "withdrawn")
            raise
        return run

    def _may_begin(self, spec: MapSpec, *, is_job: bool) -> bool:
        """Return whether a map may begin now: nothing has to be waited for, or refused."""
        return (
            not self._closed
            and not spec.kwargs
            and (is_job or self.open_maps < self._options.settings.limits.max_open_maps)
            and self._connection.connected
            and spec.ref is None
            and self.roster.offer(spec.function, None) is not None
        )

    async def _admit(self, spec: MapSpec, *, is_job: bool) -> None:
        """Return when the map may begin; raise the error that prevents it."""
        try:
            if self._closed:
                raise ClusterClosed("the cluster is closed")
            open_maps = None if is_job else len(self._maps) - self._maps.jobs
            await self._admission.admit(spec, open_maps)
        except JetmapError as error:
            if not is_job:
                self.stats.maps_refused[refusal_reason(error)] += 1
            raise

    async def cancel(self, run: OpenMap) -> None:
        """End a map on request of somebody who watches; its caller sees MapCancelled."""
        error = MapCancelled(f"the map was cancelled after {run.done} of its items were done")
        await self._end(run, "withdrawn", error)

    def steered(self, run: OpenMap) -> None:
        """Record that a map was paused, resumed or limited."""
        self.scheduler.on_limited(run)
        self._sender.pump_soon()

    @property
    def open_maps(self) -> int:
        """Number of open maps, including those that wait for a worker; jobs do not count."""
        return len(self._maps) - self._maps.jobs + self._admission.waiting

    def check_overhead(self, size: int) -> None:
        """Raise TooLarge if what each chunk carries beside its items is too large."""
        self._admission.check_overhead(size)

    async def recall(self, map_id: str) -> None:
        """Call back the chunks of a map that no dispatcher runs any more."""
        pool = self._options.pool
        queues = {subjects.queue(pool, agent.offer, map_id) for agent in self.roster.agents}
        await self._outbox.recall(map_id, {pool, *queues})

    async def _end(self, run: OpenMap, outcome: str, error: BaseException | None = None) -> None:
        """End a map early: send no more of it, and call back the chunks that are out."""
        self._maps.end(run, outcome, error)
        await self._sender.pump()

    async def _on_reader_left(self, run: OpenMap) -> None:
        """End the map: as failed if its reader stopped at a failing item, else as withdrawn."""
        failed = run.stopped and run.ledger.failed
        await self._end(run, "failed" if failed else "withdrawn")

    def _on_timeout(self, run: OpenMap, timeout: float) -> None:
        total = run.total if run.total is not None else "an unknown number of"
        error = MapTimeout(
            f"the map did not end within its timeout of {timeout:g} s: "
            f"{run.done} of {total} items were done{self._held_by(run)}"
        )
        self._maps.end(run, "timeout", error)
        self._sender.pump_soon()

    def _held_by(self, run: OpenMap) -> str:
        """Say what held a map up until its timeout; empty: nothing did."""
        if run.is_paused:
            return "; the map is paused"
        if run.gate is None or run.gate.is_open:
            return ""
        return f"; {run.gate.reason}"

    def _on_source_woke(self, run: OpenMap) -> None:
        self._maps.check_end(run)
        self._sender.pump_soon()

    # Messages

    async def _on_result(self, message: Message) -> None:
        """Process reports, and confirm them."""
        delivery = _delivery(message.data)
        if self.before_results is not None:
            self.before_results()
        now = time.monotonic()
        if len(message.data) > SHARE_BYTES:
            self._neighbours.begin(self.roster.agents)
        for report in delivery.reports:
            if report.size and not report.stored and not self._complete(delivery.agent, report):
                continue
            self._maps.accept(report, delivery.pending, now, delivery.agent)
        await self._outbox.confirm(delivery.inbox, delivery.token)
        if self._neighbours.unconfirmed > CONFIRM_BYTES:
            self._neighbours.unconfirmed = 0
            await self._outbox.confirm_now()
        await self._sender.pump()

    def take(self, reports: list[Report]) -> None:
        """Process reports that came past the broker, which nobody waits to have confirmed."""
        now = time.monotonic()
        for report in reports:
            self._maps.accept(report, -1, now)
        if any(report.final is not None for report in reports):
            self._sender.pump_now()

    def send(self) -> None:
        """Send what may be sent now, in this turn of the event loop."""
        self._sender.pump_now()

    def _complete(self, agent: str, report: Report) -> bool:
        """Put large values into their report; return whether it is to be taken in."""
        decode = self._maps.decoder(report)
        if report.at is None:
            self._neighbours.begin(self.roster.agents)
            if not self._parts.complete(agent, report):
                return False
            if decode is not None:
                report.values = decoded(report.values, decode)
            return True
        values = self._neighbours.read(agent, report.at, decode)
        if values is not None:
            report.values = values
            return True
        return self._maps.on_values_lost(report)

    async def _on_part_request(self, message: Message) -> None:
        """Send an agent a part of a chunk's items, or of a constant; none of one that is gone."""
        request = _part_request(message.data)
        parts = self._parts.items if request.number != NUMBER else self.constants.part
        try:
            await self._connection.publish(message.reply, parts(request))
        except JetmapError as error:
            logger.debug("a part could not be sent, its agent asks again: %s", error)

    async def _on_values(self, message: Message) -> None:
        """Keep a part of a report's values, and say so."""
        agent, map, number, attempt, start, offset = message.subject.rsplit(".", 6)[1:]
        name = agent, map, int(number), int(attempt), int(start)
        wanted = self._parts.add(name, int(offset), message.data)
        try:
            await self._connection.publish(message.reply, b"" if wanted else UNWANTED)
        except JetmapError as error:
            logger.debug("a part is not confirmed, its agent sends it again: %s", error)

    async def _on_claim(self, message: Message) -> None:
        """Tell an agent which of the chunks that it holds are no longer wanted."""
        claim = _claim(message.data)
        unwanted = self._maps.claim(claim, time.monotonic())
        answer = ClaimAnswer(self._inbox, claim.sequence, unwanted)
        try:
            await self._connection.publish(claim.inbox, encode(answer))
        except JetmapError as error:
            logger.debug("a claim could not be answered: %s", error)
        await self._sender.pump()

    async def _on_presence(self, presence: Presence) -> None:
        """End the maps whose function cannot be imported or loaded; send what idle cores take."""
        if presence.broken:
            for run in self._maps:
                if (failed := self.agents.broken(run.spec.function, run.spec.ref)) is not None:
                    self._maps.end(run, "failed", failed)
        self._on_quiet_presence(presence)
        if (idle := idle_cores(presence)) > 0:
            offers, offer = (presence.offer, presence.local), self.roster.offer
            self._scheduler.on_idle(
                idle, lambda run: offer(run.spec.function, run.spec.ref) in offers
            )
        await self._sender.pump()

    def _on_quiet_presence(self, presence: Presence) -> None:
        """Process the part of an announcement that is not about maps."""
        self._neighbours.meet(presence)
        if self._fitted != self.roster.changes:
            self._fit()

    def _is_quiet(self) -> bool:
        """Return whether there is no map to which an announcement could matter."""
        return not self._maps and not self._maps.to_withdraw

    def _fit(self) -> None:
        """Fit the size of chunks to the pool, and to the way of their items."""
        self._fitted = self.roster.changes
        roster = self.roster
        hurries = roster.all_speak(HURRY_PROTOCOL)
        fitted = self._cutting.fitted(roster.all_cores, roster.round_trip, hurries=hurries)
        if self._neighbours.has_any and self._neighbours.are_all(self.roster.agents):
            fitted = replace(fitted, max_bytes=SHARED_FACTOR * fitted.max_bytes)
        self._scheduler.cutting = self._outbox.cutting = fitted

    def _on_other(self, dispatcher: str) -> None:
        """Leave another dispatcher its share: it has open maps."""
        is_news = self._company.on_heard(dispatcher, time.monotonic())
        self._scheduler.is_sole = False
        if is_news and self._maps:
            self._scheduler.hurry()
            self._sender.pump_soon()
            self._background.spawn(self._keep_company(), "answer a notice")

    async def _keep_company(self) -> None:
        """Let other dispatchers know of this one while it has open maps."""
        now = time.monotonic()
        self._scheduler.is_sole = self._company.is_alone(now)
        if self._maps and self._company.must_speak(now):
            await self.steering.speak()

    def _on_neighbours(self) -> None:
        self._fit()
        self._sender.pump_soon()

    async def _on_reconnect(self) -> None:
        self._admission.on_reconnect()
        await self._outbox.renew_stream()
        await self.agents.ping()
        self._recovery.on_reconnect(self._maps, time.monotonic())

    # Periodic steps

    async def _check_lost(self) -> None:
        """Check for lost chunks every TICK, for as long as the dispatcher lives."""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self._keep_company()
                self._neighbours.rest()
                if await self._restoring.check(connected=self._connection.connected):
                    self._parts.drop_ended()
                    await self._sender.pump()
                    self._backlog.measure(self.stats)
            except Exception:
                # A map whose check fails must not keep the others from being checked.
                logger.exception("checking for lost chunks failed; trying again in a second")
