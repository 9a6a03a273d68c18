"""The dispatcher: in the caller's process, the authority over its maps' chunks."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
from nats.aio.msg import Msg

from jetmap import subjects
from jetmap.broker import topology
from jetmap.broker.connection import Connection, Subscription
from jetmap.errors import (
    ClusterClosed,
    JetmapError,
    MapTimeout,
    NoWorkers,
    TooManyMaps,
    UnknownFunction,
    WorkerStartFailed,
)
from jetmap.messages import (
    Chunk,
    Claim,
    ClaimAnswer,
    Confirmation,
    Delivery,
    Format,
    FunctionRef,
    Ping,
    Presence,
    Withdraw,
    encode,
)

from .costs import Cutting
from .ledger import Flight, Ledger, Settlement
from .maprun import MapRun
from .mapstate import MapState
from .roster import Roster
from .scheduler import Scheduler
from .sources import Source
from .stats import Stats

logger = logging.getLogger(__name__)

TICK = 1.0
PATIENCE = 4.5  # Seconds of silence about a chunk, two beats and a little, before it is sent again.
RECLAIM = 1.0  # Seconds that agents have to claim what they hold when the broker is back.
CRASH_SECONDS = 0.1  # What a crash costs its map in fair sharing: a core's next worker.
CONFIRM_BATCH = 64

_delivery = msgspec.msgpack.Decoder(Delivery).decode
_claim = msgspec.msgpack.Decoder(Claim).decode
_presence = msgspec.msgpack.Decoder(Presence).decode


@dataclass(frozen=True)
class DispatchOptions:
    """cutting: of chunks. attempts: of an item that kills its worker, unless its function says
    otherwise. max_open_maps: more are refused. max_buffer: bytes of unread results a map.
    announce_seconds: how long to wait for a function that nobody has announced yet."""

    pool: str = "default"
    cutting: Cutting = field(default_factory=Cutting)
    attempts: int = 2
    max_open_maps: int = 1000
    max_buffer: int = 16 << 20
    announce_seconds: float = 1.0
    stream: topology.StreamOptions = field(default_factory=topology.StreamOptions)


class Dispatcher:
    """Cuts maps into chunks, publishes them, and gives out each item's one outcome."""

    def __init__(self, connection: Connection, options: DispatchOptions) -> None:
        self.id = subjects.new_id()
        self.roster = Roster()
        self.stats = Stats()
        self._connection = connection
        self._options = options
        self._inbox = connection.inbox(self.id)
        self._scheduler = Scheduler(options.cutting)
        self._maps: dict[str, MapRun] = {}
        self._leaving: dict[str, MapRun] = {}
        self._tokens: dict[str, list[int]] = {}
        self._results: Subscription | None = None
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._announced = asyncio.Event()
        self._pumping = self._pump_again = self._pump_scheduled = False
        self._last_tick = time.monotonic()
        self._renewing = False
        self._closed = False

    # Its life

    async def start(self) -> None:
        """Subscribes, makes the work stream if it is missing, asks who is there."""
        subscribe = self._connection.subscribe
        pool = self._options.pool
        self._results = await subscribe(f"{self._inbox}.result", self._on_result)
        self._subscriptions = [
            self._results,
            await subscribe(f"{self._inbox}.claim", self._on_claim),
            await subscribe(f"{self._inbox}.ack.*.*", self._on_published),
            await subscribe(subjects.all_presence(pool), self._on_presence),
        ]
        self._connection.on_reconnect(self._reconnected)
        await topology.ensure_stream(self._connection, pool, self._options.stream)
        await self._ping()
        self._spawn(self._ticks())

    async def close(self) -> None:
        """Withdraws every open map; their callers see ClusterClosed."""
        if self._closed:
            return
        self._closed = True
        for run in list(self._maps.values()):
            await self._close_map(run, "withdrawn", ClusterClosed("the cluster was closed"))
        if self._connection.connected:
            pending = [t for t in self._tasks if t.get_name() == "withdraw"]
            if pending:
                await asyncio.wait(pending, timeout=2)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

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
    ) -> MapRun:
        """Starts a map.

        timeout: seconds for the whole map. ref: where an embedded worker finds the function.
        Raises UnknownFunction, NoWorkers, WorkerStartFailed, TooManyMaps, ClusterClosed.
        """
        if self._closed:
            raise ClusterClosed("the cluster is closed")
        limit = self._options.max_open_maps
        if len(self._maps) >= limit:
            raise TooManyMaps(
                f"{len(self._maps)} maps are open, which is the limit (setting max_open_maps); "
                "try again when some have ended",
                setting="max_open_maps",
                limit=limit,
            )
        if self._offer(function, ref) is None:
            await self._find_offer(function, ref)
        info = self.roster.offers(function).info
        if info is not None and ref is None:
            item_timeout = info.timeout if item_timeout is None else item_timeout
            attempts = info.attempts if attempts is None else attempts
        state = MapState(
            id=subjects.new_id(),
            function=function,
            format=format,
            kwargs=kwargs,
            timeout=item_timeout,
            ref=ref,
            source=source,
            ledger=Ledger(format, attempts or self._options.attempts),
            cost=self._scheduler.cost(function),
            max_buffer=self._options.max_buffer,
            weight=weight,
        )
        run = MapRun(
            state,
            ordered=ordered,
            withdraw=functools.partial(self._close_map, outcome="withdrawn"),
            read=self._pump_soon,
        )
        self._maps[state.id] = run
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

    def _offer(self, function: str, ref: FunctionRef | None) -> str | None:
        """The newest live offer that can run it."""
        newest = self.roster.offers(function).newest
        if newest is None and ref is not None:
            # Embedded workers import what they are asked for.
            return next(
                (p.offer for p in self.roster.agents if p.embedded and p.offer and not p.draining),
                None,
            )
        return newest

    async def _find_offer(self, function: str, ref: FunctionRef | None) -> None:
        """Waits a little for an announcement; raises what its absence means."""
        await self._ping()
        deadline = time.monotonic() + self._options.announce_seconds
        while self._offer(function, ref) is None:
            self._announced.clear()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._announced.wait()
            except TimeoutError:
                break
        if self._offer(function, ref) is not None:
            return
        if (failure := self.roster.failure) is not None:
            raise WorkerStartFailed(f"no worker can start:\n{failure}")
        pool = self._options.pool
        known = any(s.info.name == function for s in self.roster.functions())
        if known or ref is not None or await topology.known(self._connection, pool, function):
            raise NoWorkers(
                f"no worker that has {function!r} is alive in pool {pool!r}; start one: "
                "jetmap worker TASKS --nats URL"
            )
        names = ", ".join(s.info.name for s in self.roster.functions()) or "none"
        raise UnknownFunction(
            f"no worker ever announced a function {function!r} in pool {pool!r}; "
            f"functions that are offered now: {names}"
        )

    async def _close_map(
        self, run: MapRun, outcome: str, error: BaseException | None = None
    ) -> None:
        """Ends a map early: nothing of it is sent any more, and what is out is called back."""
        if self._maps.pop(run.id, None) is None:
            return
        flights = list(run.state.ledger.flights.values())
        self._forget(run, outcome)
        run.end(error)
        if flights:
            self._leaving[run.id] = run
            self._spawn(self._call_back(run, flights), "withdraw")
        await self._pump()

    def _forget(self, run: MapRun, outcome: str) -> None:
        run.state.source.wake = None
        self._scheduler.remove(run.state)
        self.stats.maps_ended[outcome] += 1
        self.stats.maps_open = len(self._maps)

    async def _call_back(self, run: MapRun, flights: list[Flight]) -> None:
        """Withdraws what is out of a map: stops its workers, then empties its queue.

        The queue is purged once more when the acknowledgements of all publishes are in: the
        broker may have taken the purge before the last of them.
        """
        pool = self._options.pool
        waiting = subjects.map_work(pool, run.id)
        try:
            await self._connection.publish(subjects.control(pool), encode(Withdraw(run.id)))
            await topology.purge(self._connection, pool, waiting)
            deadline = time.monotonic() + 2
            late = False
            while not all(f.stored for f in flights) and time.monotonic() < deadline:
                late = True
                await asyncio.sleep(0.02)
            if late:
                await topology.purge(self._connection, pool, waiting)
        except JetmapError as error:
            # Claims find out what is no longer wanted, when the broker is back.
            logger.debug("map %s could not be called back: %s", run.id, error)
        finally:
            self._leaving.pop(run.id, None)

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
        error = run.state.source.error
        if error is not None:
            self._spawn(self._close_map(run, "failed", error), "withdraw")
        elif run.state.is_complete:
            del self._maps[run.id]
            self._forget(run, "failed" if run.state.ledger.failed else "ok")
            run.end()

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
                if not self._pump_again:
                    return
        finally:
            self._pumping = False

    async def _send_next(self) -> bool:
        if self._closed:
            return False
        cores = max(1, sum(p.cores for p in self.roster.agents if not p.draining))
        cut = self._scheduler.next(cores)
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
        offer = self._offer(cut.map.function, cut.map.ref) or ""
        now = time.monotonic()
        flight = cut.map.ledger.send(cut.piece, cut.lane, offer, cut.seconds, now)
        self.stats.chunks += 1
        if cut.map.source.error is not None or not cut.map.source.has_items:
            self._check_end(run)
        if offer:
            await self._publish(run, flight)
        return True

    async def _publish(self, run: MapRun, flight: Flight) -> None:
        state, piece = run.state, flight.piece
        chunk = Chunk(
            map=state.id,
            number=flight.number,
            attempt=flight.attempt,
            function=state.function,
            format=state.format,
            start=piece.start,
            count=piece.count,
            inbox=self._inbox,
            timeout=state.timeout,
            budget=2 * self._options.cutting.seconds,
            items=piece.items,
            kwargs=state.kwargs,
            ref=state.ref,
        )
        subject = subjects.work(
            self._options.pool, flight.offer, flight.lane, state.id, flight.number
        )
        try:
            await self._connection.publish(
                subject, encode(chunk), f"{self._inbox}.ack.{state.id}.{flight.number}"
            )
        except JetmapError as error:
            # Not connected, and the buffer is full: the tick sends it again.
            logger.debug("chunk %d of %s not sent: %s", flight.number, state.id, error)

    async def _on_published(self, message: Msg) -> None:
        """The broker's word on a publish."""
        _, map, number = message.subject.rsplit(".", 2)
        run = self._maps.get(map) or self._leaving.get(map)
        flight = run.state.ledger.flights.get(int(number)) if run else None
        if flight is None:
            return
        # Refused because it is in the stream already, it is where we want it.
        if message.data and (b'"error"' not in message.data or b"per subject" in message.data):
            flight.stored = True
            return
        # Full, or gone: sent again in a moment.
        flight.heard = time.monotonic() - PATIENCE + TICK / 2
        if not message.data and not self._renewing:
            self._renewing = True
            self._spawn(self._renew_stream())

    async def _renew_stream(self) -> None:
        try:
            await topology.ensure_stream(self._connection, self._options.pool, self._options.stream)
        except JetmapError as error:
            logger.debug("the work stream is not there yet: %s", error)
        finally:
            self._renewing = False

    # Receiving

    async def _on_result(self, message: Msg) -> None:
        delivery = _delivery(message.data)
        report = delivery.report
        self._tokens.setdefault(delivery.inbox, []).append(delivery.token)
        run = self._maps.get(report.map)
        if run is not None:
            self._take(run, delivery)
        waiting = self._results.pending_msgs if self._results else 0
        if not waiting or len(self._tokens[delivery.inbox]) >= CONFIRM_BATCH:
            await self._confirm()
        await self._pump()

    def _take(self, run: MapRun, delivery: Delivery) -> None:
        report, state = delivery.report, run.state
        now = time.monotonic()
        state.cost.learn(report.count, report.seconds, len(report.values))
        self.stats.compute_seconds += report.seconds
        flight = state.ledger.flights.get(report.number)
        if flight is not None:
            flight.heard = now
            if report.final is not None:
                self.stats.queue_wait.observe(max(0.0, now - flight.published - report.seconds))
        if delivery.pending >= 0 and report.final is not None:
            cores = self.roster.cores(flight.offer) if flight else 0
            self._scheduler.window.steer(delivery.pending, cores)
        seconds = report.seconds
        if report.final is not None and report.final.crash is not None:
            seconds = max(seconds, CRASH_SECONDS)
        self._settle(run, state.ledger.take(report), seconds)

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

    async def _confirm(self) -> None:
        tokens, self._tokens = self._tokens, {}
        for inbox, confirmed in tokens.items():
            try:
                await self._connection.publish(inbox, encode(Confirmation(confirmed)))
            except JetmapError as error:
                logger.debug("not confirmed, the agent will ask again: %s", error)

    async def _on_claim(self, message: Msg) -> None:
        claim = _claim(message.data)
        unwanted = []
        now = time.monotonic()
        for held in claim.chunks:
            run = self._maps.get(held.map)
            settlement = (
                run.state.ledger.claimed(held.number, claim.agent, claim.host, now) if run else None
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

    async def _on_presence(self, message: Msg) -> None:
        presence = _presence(message.data)
        self.roster.announced(presence, time.monotonic())
        self._announced.set()
        await self._pump()

    async def wait_for(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Waits for announcements until ``ready`` holds; False after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not ready():
            self._announced.clear()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._announced.wait()
            except TimeoutError:
                return ready()
        return True

    # What happens by itself

    async def _ticks(self) -> None:
        """Every second: what nobody has heard of for too long is sent again."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            gap = now - self._last_tick - TICK
            self._last_tick = now
            if gap > TICK:
                # We were frozen: answers wait in the socket, and nobody is overdue yet.
                self.roster.credit(gap)
                for run in self._maps.values():
                    run.state.ledger.credit(gap)
                continue
            if not self._connection.connected:
                continue
            self.roster.expire(now)
            for run in list(self._maps.values()):
                await self._look_after(run, now)
            await self._pump()
            self._gauge()

    async def _look_after(self, run: MapRun, now: float) -> None:
        ledger = run.state.ledger
        for flight in ledger.silent(now, PATIENCE):
            if flight.number not in ledger.flights:
                continue
            if not flight.offer or not self.roster.is_served(flight.offer):
                await self._move(run, flight, now)
                continue
            # In the stream still, the broker refuses it and nothing is lost; else it is new.
            flight.attempt += 1
            flight.heard = flight.published = now
            self.stats.chunks_again += 1
            await self._publish(run, flight)

    async def _move(self, run: MapRun, flight: Flight, now: float) -> None:
        """Nobody serves the chunk's offer any more: it goes to another one, if there is one."""
        flight.heard = now
        if self._offer(run.state.function, run.state.ref) is None:
            return
        if flight.offer:
            subject = subjects.work(
                self._options.pool, flight.offer, flight.lane, run.id, flight.number
            )
            try:
                await topology.purge(self._connection, self._options.pool, subject)
            except JetmapError as error:
                logger.debug("not purged: %s", error)
        if flight.number in run.state.ledger.flights:
            run.state.ledger.withdraw(flight)
            self._scheduler.landed(run.state, flight, flight.seconds)

    def _gauge(self) -> None:
        self.stats.in_flight = sum(len(r.state.ledger.flights) for r in self._maps.values())
        self.stats.backlog_seconds = sum(r.state.backlog_seconds for r in self._maps.values())

    async def _reconnected(self) -> None:
        """The stream may be new and empty: what no agent claims in the next second is missing."""
        await self._renew_stream()
        await self._ping()
        soon = time.monotonic() - PATIENCE + RECLAIM
        for run in self._maps.values():
            for flight in run.state.ledger.flights.values():
                flight.heard = min(flight.heard, soon)

    async def _ping(self) -> None:
        try:
            await self._connection.publish(subjects.control(self._options.pool), encode(Ping()))
        except JetmapError as error:
            logger.debug("no ping: %s", error)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str = "dispatch") -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("dispatching failed", exc_info=error)
