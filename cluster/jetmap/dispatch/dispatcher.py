"""The dispatcher: the authority over the chunks of its maps, in the caller's process."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from jetmap.errors import (
    BrokerUnreachable,
    ClusterClosed,
    JetmapError,
    MapTimeout,
    TooLarge,
    TooManyMaps,
)
from jetmap.nats import jetstream
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import pool_streams, subjects
from jetmap.wire.messages import Claim, ClaimAnswer, Delivery, Report, encode

from .agent_tracker import AgentTracker
from .costs import Cutting
from .flight import Settlement
from .ledger import Ledger
from .memory import Memory
from .open_map import MapSpec, OpenMap
from .options import DispatchOptions
from .outbox import Outbox
from .recovery import Parked, Recovery
from .scheduler import Scheduler
from .sharing import Sharing
from .sources import Source
from .stats import Stats, refusal_reason

logger = logging.getLogger(__name__)

BROKER_SECONDS = 3.0  # Seconds a new map waits for a broker that is away.
CRASH_SECONDS = 0.1  # Seconds of compute, at least, that a crash costs its map in fair sharing.

_delivery = msgspec.msgpack.Decoder(Delivery).decode
_claim = msgspec.msgpack.Decoder(Claim).decode


class Dispatcher:
    """Cut maps into chunks, publish them, and deliver exactly one outcome for each item."""

    def __init__(self, connection: Broker, options: DispatchOptions) -> None:
        self.id = subjects.new_id()
        self.stats = Stats()
        self._connection = connection
        self._options = options
        self._inbox = connection.inbox(self.id)
        cutting = Cutting.of(options.settings.chunks)
        self._scheduler = Scheduler(cutting)
        self._maps: dict[str, OpenMap] = {}
        self.memory = Memory(options.settings.limits.memory_budget())
        self._jobs_open = self._opening = 0
        self._numbers = itertools.count(1)
        self.agents = AgentTracker(
            connection, options.pool, self._on_agents_changed, options.sealer
        )
        self.roster = self.agents.roster
        self._recovery = Recovery(
            connection,
            self._maps,
            self._scheduler,
            self.agents,
            self.stats,
            settle=self._settle,
            close=self._close_map,
            pump=self._pump,
            spawn=self._spawn,
        )
        self._outbox = self._recovery.outbox = Outbox(
            connection,
            options,
            cutting,
            self._inbox,
            on_refused=self._recovery.on_refused,
            on_stored=self._recovery.on_stored,
            on_unsendable=self._recovery.on_unsendable,
            spawn=self._spawn,
        )
        self._sharing = Sharing(
            self._scheduler,
            self._outbox,
            cores=lambda: self.roster.all_cores,
            patience=cutting.seconds,
            pump=self._pump_soon,
            spawn=self._spawn,
        )
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reconnected = asyncio.Event()
        self._pumping = self._pump_again = self._pump_scheduled = False
        self._closed = False

    # Life cycle

    async def start(self) -> None:
        """Subscribe, create the work stream if it is missing, and ask agents to announce
        themselves.
        """
        subscribe = self._connection.subscribe
        self._subscriptions = [
            await subscribe(f"{self._inbox}.result", self._on_result, direct=True),
            await subscribe(f"{self._inbox}.claim", self._on_claim),
            await subscribe(f"{self._inbox}.ack.*", self._outbox.on_ack, direct=True),
            await self.agents.subscribe(),
        ]
        self._connection.on_reconnect(self._on_reconnect)
        options = self._options
        await pool_streams.ensure_stream(
            self._connection, options.pool, options.settings.stream, patience=jetstream.PATIENCE
        )
        await self.agents.ping()
        self._spawn(self._recovery.run())

    async def close(self) -> None:
        """Withdraw every open map; its reader sees ClusterClosed."""
        if self._closed:
            return
        self._closed = True
        for run in list(self._maps.values()):
            await self._close_map(run, "withdrawn", ClusterClosed("the cluster was closed"))
        if self._connection.connected:
            await self._outbox.confirm_now()
            pending = [t for t in self._tasks if t.get_name() == "withdraw"]
            if pending:
                await asyncio.wait(pending, timeout=2)
        self._outbox.close()
        self._sharing.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    async def end_all(self, error: JetmapError) -> None:
        """End every open map of a caller with this error. Jobs stay open: they survive it."""
        for run in list(self._maps.values()):
            if subjects.job_of(run.id) is None:
                await self._close_map(run, "failed", error)

    def count_parked(self, parked: Parked) -> None:
        """Count work outside of open maps as backlog too, such as jobs that wait for workers."""
        self._recovery.parked = parked

    # Maps

    async def open(
        self,
        spec: MapSpec,
        source: Source,
        *,
        id: str | None = None,
        seen: Sequence[tuple[int, int]] = (),
    ) -> OpenMap:
        """Start a map.

        Args:
            id: Id of a job's map, which does not count towards max_open_maps.
            seen: Ranges of the job's items that have their outcome already.

        Raises UnknownFunction, NoWorkers, WorkerStartFailed, TooManyMaps, ClusterClosed.
        """
        try:
            await self._admit(spec, counts=id is None)
        except JetmapError as error:
            if id is None:
                self.stats.maps_refused[refusal_reason(error)] += 1
            raise
        spec = self._completed(spec)
        attempts = spec.attempts or self._options.settings.chunks.attempts
        run = OpenMap(
            id or f"{self.id}_{next(self._numbers)}",
            spec,
            source,
            Ledger(spec.format, attempts, seen, self._recovery.quarantine),
            self._scheduler.cost(spec.function),
            memory=self.memory,
            max_buffer=self._options.settings.limits.max_buffer_bytes,
            room=self._connection.room - spec.overhead,
            on_leave=self._on_reader_left,
            on_room=self._pump_soon,
        )
        self._maps[run.id] = run
        self._jobs_open += id is not None
        self._scheduler.add(run)
        self.stats.maps_started += 1
        self.stats.maps_open = len(self._maps)
        source.wake = functools.partial(self._on_source_woke, run)
        if spec.timeout is not None:
            run.timer = asyncio.get_running_loop().call_later(
                spec.timeout, self._on_timeout, run, spec.timeout
            )
        try:
            await self._pump()
            self._check_end(run)
        except BaseException:
            await self._close_map(run, "withdrawn")
            raise
        return run

    def _completed(self, spec: MapSpec) -> MapSpec:
        """Fill in what the function's announcement says and the caller left open."""
        info = self.roster.offers(spec.function).info
        if info is None or spec.ref is not None:
            return spec
        if info.timeout is spec.item_timeout and info.attempts is spec.attempts:
            return spec
        return msgspec.structs.replace(
            spec,
            item_timeout=info.timeout if spec.item_timeout is None else spec.item_timeout,
            attempts=info.attempts if spec.attempts is None else spec.attempts,
        )

    async def _admit(self, spec: MapSpec, *, counts: bool) -> None:
        """Raise an error if the map cannot begin. counts: whether max_open_maps includes it."""
        if self._closed:
            raise ClusterClosed("the cluster is closed")
        limit = self._options.settings.limits.max_open_maps
        if counts and self.open_maps >= limit:
            raise TooManyMaps(
                f"{self.open_maps} maps are open, which is the limit (setting max_open_maps); "
                "try again when some of them have ended",
                setting="max_open_maps",
                limit=limit,
            )
        if spec.overhead:
            self.check_overhead(spec.overhead)
        self._opening += counts
        try:
            await self._until_connected()
            await self.agents.find(spec.function, spec.ref, self._options.announce_seconds)
        finally:
            self._opening -= counts

    @property
    def open_maps(self) -> int:
        """Number of open maps, including those that wait for a worker; jobs do not count."""
        return len(self._maps) + self._opening - self._jobs_open

    def check_overhead(self, size: int) -> None:
        """Raise TooLarge if what each chunk carries beside its items is too large.

        size: bytes of the keyword parameters, and of a function that travels by value.
        """
        limit = self._connection.room // 2
        if size > limit:
            raise TooLarge(
                f"the keyword parameters (and the function, if it has no file) take {size:,} "
                f"bytes, and travel with each chunk of items; the limit is {limit:,}, half of the "
                "broker's largest message. Let the function read large data itself, from a path "
                "or a name passed to it",
                setting="max_payload",
                limit=limit,
                value=size,
            )

    async def _until_connected(self) -> None:
        """Wait for a broker that is being restarted, for BROKER_SECONDS at most."""
        self._reconnected.clear()
        if self._connection.connected:
            return
        try:
            async with asyncio.timeout(BROKER_SECONDS):
                await self._reconnected.wait()
        except TimeoutError:
            raise BrokerUnreachable(
                f"the connection to NATS at {self._connection.where} has been lost for at least "
                f"{BROKER_SECONDS:g} s: open maps continue when it is back; try this one again "
                "then"
            ) from None

    async def _on_reader_left(self, run: OpenMap) -> None:
        """Close the map: as failed if its reader stopped at a failing item, else as withdrawn."""
        failed = run.stopped and run.ledger.failed
        await self._close_map(run, "failed" if failed else "withdrawn")

    async def recall(self, map_id: str) -> None:
        """Call back the chunks of a map that no dispatcher runs any more."""
        await self._outbox.recall(map_id)

    async def _close_map(
        self, run: OpenMap, outcome: str, error: BaseException | None = None
    ) -> None:
        """End a map early: send no more of it, and call back the chunks that are out."""
        if self._maps.pop(run.id, None) is None:
            return
        self._forget(run, outcome)
        run.end(error)
        if run.ledger.flights:
            self._spawn(self._outbox.withdraw(run), "withdraw")
        await self._pump()

    def _forget(self, run: OpenMap, outcome: str) -> None:
        run.source.wake = None
        self._jobs_open -= subjects.job_of(run.id) is not None
        self._scheduler.remove(run)
        self.stats.maps_ended[outcome] += 1
        self.stats.maps_open = len(self._maps)

    def _on_timeout(self, run: OpenMap, timeout: float) -> None:
        total = run.total if run.total is not None else "an unknown number of"
        error = MapTimeout(
            f"the map did not end within its timeout of {timeout:g} s: "
            f"{run.done} of {total} items were done"
        )
        self._spawn(self._close_map(run, "timeout", error), "withdraw")

    def _on_source_woke(self, run: OpenMap) -> None:
        self._check_end(run)
        self._pump_soon()

    def _check_end(self, run: OpenMap) -> None:
        """End a map that has all its outcomes, or whose source failed."""
        if run.id not in self._maps:
            return
        source, ledger = run.source, run.ledger
        if source.error is not None:
            open = source.has_items or ledger.flights or ledger.has_pieces
            if source.fails_at_once or not open:
                self._spawn(self._close_map(run, "failed", source.error), "withdraw")
        elif run.is_complete:
            del self._maps[run.id]
            self._forget(run, "failed" if run.ledger.failed else "ok")
            run.end()

    async def _on_agents_changed(self) -> None:
        """End the maps whose module an agent cannot import; send what new agents can take."""
        for run in list(self._maps.values()):
            if (failed := self.agents.broken(run.spec.ref)) is not None:
                await self._close_map(run, "failed", failed)
        await self._pump()

    # Sending

    def _pump_soon(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._spawn(self._pump_later())

    async def _pump_later(self) -> None:
        self._pump_scheduled = False
        await self._pump()

    async def _pump(self) -> None:
        """Send every chunk that may be sent now."""
        if self._pumping:
            self._pump_again = True
            return
        self._pumping = True
        try:
            while True:
                self._pump_again = False
                while await self._send_next():
                    pass
                await self._sharing.send_soon(len(self._maps))
                if not self._pump_again:
                    return
        finally:
            self._pumping = False

    async def _send_next(self) -> bool:
        if self._closed:
            return False
        cut = self._scheduler.next(self.roster.all_cores)
        for emptied in self._scheduler.emptied:
            if (run := self._maps.get(emptied.id)) is not None:
                self._check_end(run)
        self._scheduler.emptied.clear()
        if cut is None:
            return False
        run = self._maps.get(cut.map.id)
        if run is None:
            return True
        if cut.refused is not None:
            cut.refused.index = cut.piece.start
            self._deliver(run, Settlement(cut.map.ledger.refuse(cut.piece.start, cut.refused)))
            self._check_end(run)
            return True
        offer = self.agents.offer(cut.map.spec.function, cut.map.spec.ref) or ""
        now = time.monotonic()
        flight = cut.map.ledger.send(cut.piece, cut.lane, offer, cut.seconds, now)
        self.stats.chunks_sent += 1
        if cut.map.source.error is not None or not cut.map.source.has_items:
            self._check_end(run)
        if offer:
            if cut.is_small:
                self._sharing.add(run, flight)
            else:
                await self._outbox.publish([(run, flight)])
        return True

    # Receiving

    async def _on_result(self, message: Message) -> None:
        delivery = _delivery(message.data)
        for report in delivery.reports:
            run = self._maps.get(report.map)
            if run is not None:
                self._accept(run, report, delivery.pending)
        await self._outbox.confirm(delivery.inbox, delivery.token)
        await self._pump()

    def _accept(self, run: OpenMap, report: Report, pending: int) -> None:
        now = time.monotonic()
        self.stats.compute_seconds += report.seconds
        run.stored_bytes += report.size
        flight = run.ledger.flights.get(report.number)
        run.learn(report, flight)
        if flight is not None:
            flight.heard = now
            if report.final is not None:
                self.stats.chunks += 1
                self.stats.queue_wait.observe(max(0.0, now - flight.published - report.seconds))
        if pending >= 0 and report.final is not None:
            cores = self.roster.cores(flight.offer) if flight else 0
            self._scheduler.window.steer(pending, cores, self._scheduler.weight)
        seconds = report.seconds
        if report.final is not None and report.final.crash is not None:
            # The core was useless until its next worker was ready: its map pays for that.
            crash = report.final.crash
            seconds += max(CRASH_SECONDS, crash.start_seconds)
            self.stats.count_crash(run.spec.function, crash)
        self._settle(run, run.ledger.accept(report), seconds)
        if report.rest is not None:
            self._scheduler.requeue(run)

    def _settle(self, run: OpenMap, settlement: Settlement, seconds: float = 0.0) -> None:
        if settlement.ended is not None:
            self._scheduler.on_landed(run, settlement.ended, seconds)
        self._deliver(run, settlement)
        self._check_end(run)

    def _deliver(self, run: OpenMap, settlement: Settlement) -> None:
        for batch in settlement.batches:
            self.stats.items_done += batch.count
            for record in batch.errors:
                self.stats.errors[record.kind] += 1
        run.deliver(settlement.batches)

    async def _on_claim(self, message: Message) -> None:
        claim = _claim(message.data)
        unwanted = []
        now = time.monotonic()
        for held in claim.chunks:
            run = self._maps.get(held.map)
            settlement = (
                run.ledger.claim(
                    held.number,
                    claim.agent,
                    claim.host,
                    now,
                    deliveries=held.deliveries,
                    vanished=self.roster.vanished,
                )
                if run
                else None
            )
            if run is not None and settlement is not None:
                self._settle(run, settlement)
            if settlement is None or settlement.ended is not None:
                unwanted.append((held.map, held.number))
        answer = ClaimAnswer(self._inbox, claim.sequence, unwanted)
        try:
            await self._connection.publish(claim.inbox, encode(answer))
        except JetmapError as error:
            logger.debug("a claim could not be answered: %s", error)
        await self._pump()

    async def _on_reconnect(self) -> None:
        self._reconnected.set()
        await self._recovery.on_reconnect()

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str = "dispatch") -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a background task of the dispatcher failed", exc_info=error)
