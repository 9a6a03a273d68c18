"""The dispatcher: in the caller's process, the authority over its maps' chunks."""

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
    LimitExceeded,
    MapTimeout,
    TooManyMaps,
)
from jetmap.nats import jetstream
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import pool_streams, subjects
from jetmap.wire.messages import Claim, ClaimAnswer, Delivery, Format, FunctionRef, Report, encode

from .attendance import Attendance
from .flight import Settlement
from .ledger import Ledger
from .maprun import MapRun
from .mapstate import MapState
from .memory import Memory
from .options import DispatchOptions
from .outbox import Outbox
from .recovery import Parked, Recovery
from .scheduler import Scheduler
from .sharing import Sharing
from .sources import Source
from .stats import Stats, refusal_reason

logger = logging.getLogger(__name__)

BROKER_SECONDS = 3.0  # That a new map waits for a broker that is away.
CRASH_SECONDS = 0.1  # What a crash costs its map in fair sharing: a core's next worker.

_delivery = msgspec.msgpack.Decoder(Delivery).decode
_claim = msgspec.msgpack.Decoder(Claim).decode


class Dispatcher:
    """Cuts maps into chunks, publishes them, and gives out each item's one outcome."""

    def __init__(self, connection: Broker, options: DispatchOptions) -> None:
        self.id = subjects.new_id()
        self.stats = Stats()
        self._connection = connection
        self._options = options
        self._inbox = connection.inbox(self.id)
        self._scheduler = Scheduler(options.cutting)
        self._maps: dict[str, MapRun] = {}
        self.memory = Memory(options.max_memory)
        self._jobs_open = self._opening = 0
        self._numbers = itertools.count(1)
        self.attendance = Attendance(connection, options.pool, self._agents_changed, options.sealer)
        self.roster = self.attendance.roster
        self._recovery = Recovery(
            connection,
            self._maps,
            self._scheduler,
            self.attendance,
            self.stats,
            settle=self._settle,
            close=self._close_map,
            pump=self._pump,
            spawn=self._spawn,
        )
        self._outbox = self._recovery.outbox = Outbox(
            connection,
            options,
            self._inbox,
            refused=self._recovery.refused,
            stored=self._recovery.stored,
            unsendable=self._recovery.unsendable,
            spawn=self._spawn,
        )
        self._sharing = Sharing(
            self._scheduler,
            self._outbox,
            cores=lambda: self.roster.all_cores,
            patience=options.cutting.seconds,
            pump=self._pump_soon,
            spawn=self._spawn,
        )
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._back = asyncio.Event()
        self._pumping = self._pump_again = self._pump_scheduled = False
        self._closed = False

    # Its life

    async def start(self) -> None:
        """Subscribes, makes the work stream if it is missing, asks who is there."""
        subscribe = self._connection.subscribe
        self._subscriptions = [
            await subscribe(f"{self._inbox}.result", self._on_result, direct=True),
            await subscribe(f"{self._inbox}.claim", self._on_claim),
            await subscribe(f"{self._inbox}.ack.*", self._outbox.on_published, direct=True),
            await self.attendance.subscribe(),
        ]
        self._connection.on_reconnect(self._reconnected)
        options = self._options
        await pool_streams.ensure_stream(
            self._connection, options.pool, options.stream, patience=jetstream.PATIENCE
        )
        await self.attendance.ping()
        self._spawn(self._recovery.run())

    async def close(self) -> None:
        """Withdraws every open map; their callers see ClusterClosed."""
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
        """End every open map of a caller with this error; jobs outlive what ends them."""
        for run in list(self._maps.values()):
            if subjects.job_of(run.id) is None:
                await self._close_map(run, "failed", error)

    def count_parked(self, parked: Parked) -> None:
        """Count as backlog also what waits outside of open maps, such as jobs without workers."""
        self._recovery.parked = parked

    # Maps

    async def open(
        self,
        function: str,
        source: Source,
        *,
        format: Format,
        kwargs: bytes = b"",
        timeout: float | None = None,
        ordered: bool = False,
        ref: FunctionRef | None = None,
        item_timeout: float | None = None,
        attempts: int | None = None,
        weight: float = 1.0,
        id: str | None = None,
        seen: Sequence[tuple[int, int]] = (),
    ) -> MapRun:
        """Starts a map.

        timeout: seconds for the whole map. ref: where an embedded worker finds the function.
        weight: its share of the cores beside other maps. id, seen: of a job's map, which counts
        towards no limit; and the ranges of its items that need not run. Raises UnknownFunction,
        NoWorkers, WorkerStartFailed, TooManyMaps, ClusterClosed.
        """
        overhead = len(kwargs) + (len(ref.value or b"") if ref is not None else 0)
        try:
            await self._admit(function, ref, overhead, counts=id is None)
        except JetmapError as error:
            if id is None:
                self.stats.maps_refused[refusal_reason(error)] += 1
            raise
        info = self.roster.offers(function).info
        if info is not None and ref is None:
            item_timeout = info.timeout if item_timeout is None else item_timeout
            attempts = info.attempts if attempts is None else attempts
        state = MapState(
            id=id or f"{self.id}_{next(self._numbers)}",
            function=function,
            format=format,
            kwargs=kwargs,
            timeout=item_timeout,
            ref=ref,
            source=source,
            ledger=Ledger(
                format, attempts or self._options.attempts, seen, self._recovery.quarantine
            ),
            cost=self._scheduler.cost(function),
            max_buffer=self._options.max_buffer,
            memory=self.memory,
            room=self._connection.room - overhead,
            weight=weight,
        )
        run = MapRun(
            state,
            ordered=ordered,
            withdraw=self._withdrawn,
            read=self._pump_soon,
        )
        self._maps[state.id] = run
        self._jobs_open += id is not None
        self._scheduler.add(state)
        self.stats.maps_started += 1
        self.stats.maps_open = len(self._maps)
        source.wake = functools.partial(self._source_woke, run)
        if timeout is not None:
            run.timer = asyncio.get_running_loop().call_later(
                timeout, self._timed_out, run, timeout
            )
        try:
            await self._pump()
            self._check_end(run)
        except BaseException:
            await self._close_map(run, "withdrawn")
            raise
        return run

    async def _admit(
        self, function: str, ref: FunctionRef | None, overhead: int, *, counts: bool
    ) -> None:
        """Raise what stands against a new map. counts: whether it counts among the open ones."""
        if self._closed:
            raise ClusterClosed("the cluster is closed")
        limit = self._options.max_open_maps
        if counts and self.open_maps >= limit:
            raise TooManyMaps(
                f"{self.open_maps} maps are open, which is the limit (setting max_open_maps); "
                "try again when some have ended",
                setting="max_open_maps",
                limit=limit,
            )
        self.check_overhead(overhead)
        self._opening += counts
        try:
            await self._until_connected()
            await self.attendance.find(function, ref, self._options.announce_seconds)
        finally:
            self._opening -= counts

    @property
    def open_maps(self) -> int:
        """Those that wait for a worker, too; jobs do not count."""
        return len(self._maps) + self._opening - self._jobs_open

    def check_overhead(self, size: int) -> None:
        """Keyword parameters, and a function that travels by value, go with each chunk.

        Raises LimitExceeded if they take more bytes than is sensible.
        """
        limit = self._connection.room // 2
        if size > limit:
            raise LimitExceeded(
                f"the keyword parameters (and the function, if it has no file) take {size:,} "
                f"bytes, and travel with each chunk of items; the limit is {limit:,}, half of the "
                "broker's largest message. Have the function read large data itself, from a path "
                "or a name that it is given",
                setting="max_payload",
                limit=limit,
                value=size,
            )

    async def _until_connected(self) -> None:
        """A broker that is restarted is waited for, but not for long."""
        self._back.clear()
        if self._connection.connected:
            return
        try:
            async with asyncio.timeout(BROKER_SECONDS):
                await self._back.wait()
        except TimeoutError:
            raise BrokerUnreachable(
                f"the connection to NATS at {self._connection.where} is lost, for "
                f"{BROKER_SECONDS:g} s at least: open maps go on when it is back; try this one "
                "again then"
            ) from None

    async def _withdrawn(self, run: MapRun) -> None:
        """Its reader has left; one that stopped at a failing item has what it wants to know."""
        failed = run.state.stopped and run.state.ledger.failed
        await self._close_map(run, "failed" if failed else "withdrawn")

    async def recall(self, map: str) -> None:
        """Calls back what is out of a map that no dispatcher runs any more."""
        await self._outbox.recall(map)

    async def _close_map(
        self, run: MapRun, outcome: str, error: BaseException | None = None
    ) -> None:
        """Ends a map early: nothing of it is sent any more, and what is out is called back."""
        if self._maps.pop(run.id, None) is None:
            return
        self._forget(run, outcome)
        run.end(error)
        if run.state.ledger.flights:
            self._spawn(self._outbox.withdraw(run.state), "withdraw")
        await self._pump()

    def _forget(self, run: MapRun, outcome: str) -> None:
        run.state.source.wake = None
        self._jobs_open -= subjects.job_of(run.id) is not None
        self._scheduler.remove(run.state)
        self.stats.maps_ended[outcome] += 1
        self.stats.maps_open = len(self._maps)

    def _timed_out(self, run: MapRun, timeout: float) -> None:
        total = run.total if run.total is not None else "an unknown number of"
        error = MapTimeout(
            f"the map did not end within its timeout of {timeout:g} s: "
            f"{run.done} of {total} items were done"
        )
        self._spawn(self._close_map(run, "timeout", error), "withdraw")

    def _source_woke(self, run: MapRun) -> None:
        self._check_end(run)
        self._pump_soon()

    def _check_end(self, run: MapRun) -> None:
        """Ends a map that has all its outcomes, or whose source failed."""
        if run.id not in self._maps:
            return
        source, ledger = run.state.source, run.state.ledger
        if source.error is not None:
            open = source.has_items or ledger.flights or ledger.has_pieces
            if source.fails_at_once or not open:
                self._spawn(self._close_map(run, "failed", source.error), "withdraw")
        elif run.state.is_complete:
            del self._maps[run.id]
            self._forget(run, "failed" if run.state.ledger.failed else "ok")
            run.end()

    async def _agents_changed(self) -> None:
        """An agent has announced itself; maps whose module it cannot import end."""
        for run in list(self._maps.values()):
            if (failed := self.attendance.broken(run.state.ref)) is not None:
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
        """Sends every chunk that may be sent now."""
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
            self._give(run, Settlement(cut.map.ledger.refuse(cut.piece.start, cut.refused)))
            self._check_end(run)
            return True
        offer = self.attendance.offer(cut.map.function, cut.map.ref) or ""
        now = time.monotonic()
        flight = cut.map.ledger.send(cut.piece, cut.lane, offer, cut.seconds, now)
        self.stats.chunks_sent += 1
        if cut.map.source.error is not None or not cut.map.source.has_items:
            self._check_end(run)
        if offer:
            if cut.is_small:
                self._sharing.add(run.state, flight)
            else:
                await self._outbox.publish([(run.state, flight)])
        return True

    # Receiving

    async def _on_result(self, message: Message) -> None:
        delivery = _delivery(message.data)
        for report in delivery.reports:
            run = self._maps.get(report.map)
            if run is not None:
                self._take(run, report, delivery.pending)
        await self._outbox.confirm(delivery.inbox, delivery.token)
        await self._pump()

    def _take(self, run: MapRun, report: Report, pending: int) -> None:
        state = run.state
        now = time.monotonic()
        self.stats.compute_seconds += report.seconds
        state.stored_bytes += report.size
        flight = state.ledger.flights.get(report.number)
        state.learn(report, flight)
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
            # The core was of no use to anyone until its next worker was ready.
            crash = report.final.crash
            seconds += max(CRASH_SECONDS, crash.start_seconds)
            self.stats.crash(state.function, crash)
        self._settle(run, state.ledger.take(report), seconds)
        if report.rest is not None:
            self._scheduler.requeue(state)

    def _settle(self, run: MapRun, settlement: Settlement, seconds: float = 0.0) -> None:
        if settlement.ended is not None:
            self._scheduler.landed(run.state, settlement.ended, seconds)
        self._give(run, settlement)
        self._check_end(run)

    def _give(self, run: MapRun, settlement: Settlement) -> None:
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
                run.state.ledger.claimed(
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
            logger.debug("claim not answered: %s", error)
        await self._pump()

    async def _reconnected(self) -> None:
        self._back.set()
        await self._recovery.reconnected()

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str = "dispatch") -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("dispatching failed", exc_info=error)
