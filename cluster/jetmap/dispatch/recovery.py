"""Finds what was lost of open maps, and has it sent again; ends what has no hope."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker
from jetmap.wire import subjects
from jetmap.wire.messages import ErrorRecord
from jetmap.wire.timing import PATIENCE, RECLAIM, UNCONFIRMED_SECONDS

from .attendance import Attendance
from .flight import Flight, Quarantine, Settlement
from .maprun import MapRun
from .outbox import Key, Outbox, Spawn
from .scheduler import Scheduler
from .stats import Stats

logger = logging.getLogger(__name__)

TICK = 1.0
REFUSED_SECONDS = 0.1
STORE_SECONDS = 3.0
HOPELESS_SECONDS = 10.0  # That a map waits for workers that cannot start.


# Function and number of items of all that waits outside of open maps.
Parked = Callable[[], Iterable[tuple[str, int]]]


class Recovery:
    """maps: the open ones. settle, close, pump: the dispatcher's own."""

    def __init__(
        self,
        connection: Broker,
        maps: Mapping[str, MapRun],
        scheduler: Scheduler,
        attendance: Attendance,
        stats: Stats,
        *,
        settle: Callable[[MapRun, Settlement], None],
        close: Callable[[MapRun, str, BaseException], Awaitable[None]],
        pump: Callable[[], Awaitable[None]],
        spawn: Spawn,
    ) -> None:
        self.outbox: Outbox
        self.parked: Parked = tuple
        self.quarantine = Quarantine()
        self._connection = connection
        self._maps = maps
        self._scheduler = scheduler
        self._attendance = attendance
        self._stats = stats
        self._settle = settle
        self._close = close
        self._pump = pump
        self._spawn = spawn

    async def run(self) -> None:
        """Every second, for as long as the dispatcher lives."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            gap, last = now - last - TICK, now
            try:
                await self._look(now, gap)
            except Exception:
                # A map that cannot be looked after must not cost the others that they are.
                logger.exception("looking for lost chunks failed; tried again in a second")

    async def _look(self, now: float, gap: float) -> None:
        roster = self._attendance.roster
        if gap > TICK:
            # We were frozen: answers wait in the socket, and nobody is overdue yet.
            self._credit(gap)
            return
        if not self._connection.connected:
            self._credit(TICK + gap)
            return
        for agent in roster.expire(now):
            self._stats.agents_lost += 1
            logger.warning(
                "agent %s on host %s, with %d cores, has gone silent: what it had runs elsewhere",
                agent.agent,
                agent.host,
                agent.cores,
            )
        self.quarantine.look(now)
        await self._ask_for_word(now)
        await self._publish_silent(now)
        await self._end_hopeless(now)
        await self._pump()
        self._gauge()

    def _credit(self, gap: float) -> None:
        self._attendance.roster.credit(gap)
        for run in self._maps.values():
            run.state.ledger.credit(gap)

    async def _ask_for_word(self, now: float) -> None:
        """What did not ask, and was not heard of soon, asks now: the broker refuses it, which
        is its word that it has it, or takes it, since it had refused or lost it."""
        again = []
        for run in self._maps.values():
            for flight in run.state.ledger.unconfirmed(now, UNCONFIRMED_SECONDS):
                if flight.offer and now - flight.heard < PATIENCE:
                    flight.attempt += 1
                    flight.published = now
                    again.append((run.state, flight))
        await self.outbox.publish_again(again)

    async def _publish_silent(self, now: float) -> None:
        """What was silent for too long is published again: in the stream still, the broker
        refuses it and nothing is lost; else it is new."""
        for run in list(self._maps.values()):
            silent = run.state.ledger.silent(now, PATIENCE)
            if silent and run.stored is None:
                await self._publish(run, silent, now)
            elif silent and not run.is_asking:
                run.is_asking = True
                self._spawn(self._publish_what_is_not_stored(run))

    async def _publish(self, run: MapRun, silent: list[Flight], now: float) -> None:
        again = []
        for flight in silent:
            if not flight.offer or not self._attendance.roster.is_served(flight.offer):
                await self._move(run, flight, now)
                continue
            flight.attempt += 1
            flight.heard = flight.published = now
            again.append((run.state, flight))
        self._stats.chunks_again["silent"] += len(again)
        await self.outbox.publish_again(again)

    async def _publish_what_is_not_stored(self, run: MapRun) -> None:
        """Whoever fell silent with a job's chunk may have stored some of it before."""
        ledger = run.state.ledger
        try:
            async with asyncio.timeout(STORE_SECONDS):
                stored = await run.stored() if run.stored is not None else []
            for settlement in [*ledger.know(stored), Settlement()]:
                self._settle(run, settlement)
        except (TimeoutError, JetmapError) as error:
            logger.debug("map %s: what is stored is not known: %s", run.id, error)
        finally:
            run.is_asking = False
        if run.id not in self._maps:
            return
        now = time.monotonic()
        for flight in ledger.silent(now, PATIENCE):
            if ledger.is_begun(flight):
                await self._take_back(run, flight)
        await self._publish(run, ledger.silent(now, PATIENCE), now)
        await self._pump()

    async def _end_hopeless(self, now: float) -> None:
        """Maps whose function no worker can import any more. (Jobs wait: they outlive that.)"""
        for run in list(self._maps.values()):
            function = run.state.function
            failed = None
            if self._attendance.offer(function, run.state.ref) is None:
                failed = self._attendance.failure(function)
            if failed is None or subjects.job_of(run.id) is not None:
                run.hopeless_since = None
            elif run.hopeless_since is None:
                run.hopeless_since = now
            elif now - run.hopeless_since > HOPELESS_SECONDS:
                await self._close(run, "failed", failed)

    async def _move(self, run: MapRun, flight: Flight, now: float) -> None:
        """Nobody serves the chunk's offer any more: it goes to another one, if there is one."""
        flight.heard = now
        if flight.number not in run.state.ledger.flights:
            return
        if self._attendance.offer(run.state.function, run.state.ref) is None:
            return
        await self._take_back(run, flight)

    async def _take_back(self, run: MapRun, flight: Flight) -> None:
        """What of a chunk has no outcome is sent again, as a new one."""
        if flight.subject:
            await self.outbox.take_back(flight)
        if flight.number in run.state.ledger.flights:
            self._stats.chunks_again["lost"] += 1
            run.state.ledger.withdraw(flight, self._attendance.roster.vanished)
            self._scheduler.landed(run.state, flight, flight.seconds)

    def _gauge(self) -> None:
        self._stats.in_flight = sum(len(r.state.ledger.flights) for r in self._maps.values())
        backlog = [
            (run.state.cost, run.state.backlog_items(has_workers=self._has_workers(run)))
            for run in self._maps.values()
        ]
        backlog += [(self._scheduler.cost(function), items) for function, items in self.parked()]
        self._stats.backlog_items = sum(items for _, items in backlog)
        self._stats.backlog_seconds = sum(
            items * self._scheduler.cutting.estimate(cost) for cost, items in backlog
        )

    def _has_workers(self, run: MapRun) -> bool:
        return self._attendance.offer(run.state.function, run.state.ref) is not None

    async def reconnected(self) -> None:
        """The stream may be new and empty: what no agent claims in the next second is missing."""
        await self.outbox.renew_stream()
        await self._attendance.ping()
        soon = time.monotonic() - PATIENCE + RECLAIM
        for run in self._maps.values():
            for flight in run.state.ledger.flights.values():
                flight.heard = min(flight.heard, soon)

    def refused(self, chunks: list[Key]) -> None:
        """The stream is full, or gone: less is kept in it, and the chunks sent again soon."""
        self._scheduler.window.refused()
        self._spawn(self._send_again(chunks))

    def stored(self, chunks: list[Key]) -> None:
        """The broker has these."""
        for _, flight in self._out(chunks):
            flight.confirmed = True

    def unsendable(self, chunks: list[Key], message: str) -> None:
        for run, flight in self._out(chunks):
            error = ErrorRecord(0, "unencodable", "ValueError", message)
            self._settle(run, run.state.ledger.give_up(flight, error))

    async def _send_again(self, chunks: list[Key]) -> None:
        await asyncio.sleep(REFUSED_SECONDS)
        again = []
        for run, flight in self._out(chunks):
            flight.heard = flight.published = time.monotonic()
            again.append((run.state, flight))
        self._stats.chunks_again["refused"] += len(again)
        await self.outbox.publish_again(again)

    def _out(self, chunks: list[Key]) -> list[tuple[MapRun, Flight]]:
        """Those that are still out."""
        found = []
        for map, number in chunks:
            run = self._maps.get(map)
            flight = run.state.ledger.flights.get(number) if run else None
            if run is not None and flight is not None:
                found.append((run, flight))
        return found
