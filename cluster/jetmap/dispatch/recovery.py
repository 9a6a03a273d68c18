"""Find the chunks of open maps that were lost and send them again; end maps without hope."""

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

from .agent_tracker import AgentTracker
from .flight import Flight, Quarantine, Settlement
from .open_map import OpenMap
from .outbox import Key, Outbox, Spawn
from .scheduler import Scheduler
from .stats import Stats

logger = logging.getLogger(__name__)

TICK = 1.0  # Seconds between two checks.
REFUSED_SECONDS = 0.1  # Seconds before chunks that the broker refused are sent again.
STORE_SECONDS = 3.0  # Seconds to read from the store which of a job's items are done.
HOPELESS_SECONDS = 10.0  # Seconds a map waits for workers that cannot start.


# Function and number of items of each piece of work that waits outside of open maps.
Parked = Callable[[], Iterable[tuple[str, int]]]


class Recovery:
    """Check all open maps once a second, and act on what is missing.

    Args:
        maps: The open maps, by id.
        settle, close, pump, spawn: Actions of the dispatcher.
    """

    def __init__(
        self,
        connection: Broker,
        maps: Mapping[str, OpenMap],
        scheduler: Scheduler,
        agents: AgentTracker,
        stats: Stats,
        *,
        settle: Callable[[OpenMap, Settlement], None],
        close: Callable[[OpenMap, str, BaseException], Awaitable[None]],
        pump: Callable[[], Awaitable[None]],
        spawn: Spawn,
    ) -> None:
        self.outbox: Outbox
        self.parked: Parked = tuple
        self.quarantine = Quarantine()
        self._connection = connection
        self._maps = maps
        self._scheduler = scheduler
        self._agents = agents
        self._stats = stats
        self._settle = settle
        self._close = close
        self._pump = pump
        self._spawn = spawn

    async def run(self) -> None:
        """Check once a second, for as long as the dispatcher lives."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            gap, last = now - last - TICK, now
            try:
                await self._check(now, gap)
            except Exception:
                # A map whose check fails must not keep the others from being checked.
                logger.exception("checking for lost chunks failed; trying again in a second")

    async def _check(self, now: float, gap: float) -> None:
        roster = self._agents.roster
        if gap > TICK:
            # This process was frozen: answers wait in the socket, and nothing is overdue yet.
            self._credit(gap)
            return
        if not self._connection.connected:
            self._credit(TICK + gap)
            return
        for agent in roster.expire(now):
            self._stats.agents_lost += 1
            logger.warning(
                "agent %s on host %s, with %d cores, has gone silent: its chunks run elsewhere",
                agent.agent,
                agent.host,
                agent.cores,
            )
        self.quarantine.expire(now)
        await self._request_acks(now)
        await self._republish_silent(now)
        await self._end_hopeless(now)
        await self._pump()
        self._update_gauges()

    def _credit(self, gap: float) -> None:
        self._agents.roster.credit(gap)
        for run in self._maps.values():
            run.ledger.credit(gap)

    async def _request_acks(self, now: float) -> None:
        """Publish again, with a request for an ack, what went out without one and is silent.

        The broker refuses a message that it has, which confirms it; otherwise it had refused or
        lost the first one, and takes the second.
        """
        again = []
        for run in self._maps.values():
            for flight in run.ledger.unconfirmed(now, UNCONFIRMED_SECONDS):
                if flight.offer and now - flight.heard < PATIENCE:
                    flight.attempt += 1
                    flight.published = now
                    again.append((run, flight))
        await self.outbox.publish_again(again)

    async def _republish_silent(self, now: float) -> None:
        """Publish again the chunks that were silent for too long.

        If a chunk is still in the stream, the broker refuses the second one, which does no harm.
        """
        for run in list(self._maps.values()):
            silent = run.ledger.silent(now, PATIENCE)
            if silent and run.stored is None:
                await self._republish(run, silent, now)
            elif silent and not run.is_asking:
                run.is_asking = True
                self._spawn(self._republish_unstored(run))

    async def _republish(self, run: OpenMap, silent: list[Flight], now: float) -> None:
        again = []
        for flight in silent:
            if not flight.offer or not self._agents.roster.is_served(flight.offer):
                await self._move(run, flight, now)
                continue
            flight.attempt += 1
            flight.heard = flight.published = now
            again.append((run, flight))
        self._stats.chunks_again["silent"] += len(again)
        await self.outbox.publish_again(again)

    async def _republish_unstored(self, run: OpenMap) -> None:
        """Publish the silent chunks of a job again, but for the items that are in the store.

        An agent that fell silent with a chunk may have stored some of its outcomes before.
        """
        ledger = run.ledger
        try:
            async with asyncio.timeout(STORE_SECONDS):
                stored = await run.stored() if run.stored is not None else []
            for settlement in [*ledger.mark_seen(stored), Settlement()]:
                self._settle(run, settlement)
        except (TimeoutError, JetmapError) as error:
            logger.debug("map %s: cannot read which outcomes are stored: %s", run.id, error)
        finally:
            run.is_asking = False
        if run.id not in self._maps:
            return
        now = time.monotonic()
        for flight in ledger.silent(now, PATIENCE):
            if ledger.is_begun(flight):
                await self._take_back(run, flight)
        await self._republish(run, ledger.silent(now, PATIENCE), now)
        await self._pump()

    async def _end_hopeless(self, now: float) -> None:
        """End the maps whose function no worker can import any more. Jobs wait instead."""
        for run in list(self._maps.values()):
            function = run.spec.function
            failed = None
            if self._agents.offer(function, run.spec.ref) is None:
                failed = self._agents.failure(function)
            if failed is None or subjects.job_of(run.id) is not None:
                run.hopeless_since = None
            elif run.hopeless_since is None:
                run.hopeless_since = now
            elif now - run.hopeless_since > HOPELESS_SECONDS:
                await self._close(run, "failed", failed)

    async def _move(self, run: OpenMap, flight: Flight, now: float) -> None:
        """Take back a chunk whose offer nobody serves any more, if another offer can take it."""
        flight.heard = now
        if flight.number not in run.ledger.flights:
            return
        if self._agents.offer(run.spec.function, run.spec.ref) is None:
            return
        await self._take_back(run, flight)

    async def _take_back(self, run: OpenMap, flight: Flight) -> None:
        """Take a chunk back, and return its items without an outcome to be sent anew."""
        if flight.subject:
            await self.outbox.take_back(flight)
        if flight.number in run.ledger.flights:
            self._stats.chunks_again["lost"] += 1
            run.ledger.withdraw(flight, self._agents.roster.vanished)
            self._scheduler.on_landed(run, flight, flight.seconds)

    def _update_gauges(self) -> None:
        self._stats.in_flight = sum(len(r.ledger.flights) for r in self._maps.values())
        backlog = [
            (run.cost, run.backlog_items(has_workers=self._has_workers(run)))
            for run in self._maps.values()
        ]
        backlog += [(self._scheduler.cost(function), items) for function, items in self.parked()]
        self._stats.backlog_items = sum(items for _, items in backlog)
        self._stats.backlog_seconds = sum(
            items * self._scheduler.cutting.estimate(cost) for cost, items in backlog
        )

    def _has_workers(self, run: OpenMap) -> bool:
        return self._agents.offer(run.spec.function, run.spec.ref) is not None

    async def on_reconnect(self) -> None:
        """Treat every chunk that no agent claims within RECLAIM seconds as lost.

        The stream may be new and empty.
        """
        await self.outbox.renew_stream()
        await self._agents.ping()
        soon = time.monotonic() - PATIENCE + RECLAIM
        for run in self._maps.values():
            for flight in run.ledger.flights.values():
                flight.heard = min(flight.heard, soon)

    def on_refused(self, chunks: list[Key]) -> None:
        """Keep fewer chunks in a stream that is full or gone, and send these again soon."""
        self._scheduler.window.on_refused()
        self._spawn(self._send_again(chunks))

    def on_stored(self, chunks: list[Key]) -> None:
        """Note that the broker has these chunks."""
        for _, flight in self._out(chunks):
            flight.confirmed = True

    def on_unsendable(self, chunks: list[Key], message: str) -> None:
        """Fail every item of chunks that are too large for the broker."""
        for run, flight in self._out(chunks):
            error = ErrorRecord(0, "unencodable", "ValueError", message)
            self._settle(run, run.ledger.fail_all(flight, error))

    async def _send_again(self, chunks: list[Key]) -> None:
        await asyncio.sleep(REFUSED_SECONDS)
        again = []
        for run, flight in self._out(chunks):
            flight.heard = flight.published = time.monotonic()
            again.append((run, flight))
        self._stats.chunks_again["refused"] += len(again)
        await self.outbox.publish_again(again)

    def _out(self, chunks: list[Key]) -> list[tuple[OpenMap, Flight]]:
        """Return those of these chunks that are still out."""
        found = []
        for map, number in chunks:
            run = self._maps.get(map)
            flight = run.ledger.flights.get(number) if run else None
            if run is not None and flight is not None:
                found.append((run, flight))
        return found
