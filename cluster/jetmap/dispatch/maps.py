"""The open maps of a dispatcher, and what messages mean for them. No I/O, no clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from jetmap.wire import subjects
from jetmap.wire.messages import ChunkKey, Claim, ErrorRecord, Report
from jetmap.wire.scattered import LEAST

from .constants import KeptConstants
from .failures import Failures
from .flight import Flight, Settlement
from .open_map import OpenMap
from .profile import Profile
from .roster import Roster
from .scheduler import Scheduler
from .sharing import Sent
from .stats import Stats

logger = logging.getLogger(__name__)

CRASH_SECONDS = 0.1  # Seconds of compute, at least, that a crash costs its map in fair sharing.


class OpenMaps:
    """Settle what reports and claims say with the maps' ledgers, and end maps that are done.

    Attributes:
        jobs: Number of open maps that belong to jobs.
        to_withdraw: Maps that ended early, whose chunks are still to be called back.
        failures: Causes of failed items; None: nobody keeps them.
        on_end: Called with each map that has a profile or failures when it ends, and how it did.
        postponed: Maps with new items that wait for the time of their next try.
        constants: The values that have been put; None: there are none.
        lost: Chunks that the broker had lost when they were published again, as it turned out.
    """

    def __init__(self, scheduler: Scheduler, roster: Roster, stats: Stats) -> None:
        self.jobs = 0
        self.to_withdraw: list[OpenMap] = []
        self.failures: Failures | None = None
        self.on_end: Callable[[OpenMap, str], None] | None = None
        self.postponed: list[OpenMap] = []
        self.constants: KeptConstants | None = None
        self.lost: list[Flight] = []
        self._maps: dict[str, OpenMap] = {}
        self._scheduler = scheduler
        self._roster = roster
        self._stats = stats

    def __len__(self) -> int:
        return len(self._maps)

    def __iter__(self) -> Iterator[OpenMap]:
        return iter(list(self._maps.values()))

    def __contains__(self, run: OpenMap) -> bool:
        return run.id in self._maps

    def get(self, id: str) -> OpenMap | None:
        return self._maps.get(id)

    def out(self, chunks: list[ChunkKey]) -> list[Sent]:
        """Return those of these chunks that are still out."""
        found = []
        for map, number in chunks:
            run = self._maps.get(map)
            flight = run.ledger.flights.get(number) if run else None
            if run is not None and flight is not None:
                found.append((run, flight))
        return found

    # Beginning and ending

    def add(self, run: OpenMap) -> None:
        """Add a map. Raises ValueError if a constant that it needs is not there any more."""
        if run.spec.constants and self.constants is not None:
            self.constants.hold(run.spec.constants)
        self._maps[run.id] = run
        self.jobs += subjects.job_of(run.id) is not None
        self._scheduler.add(run)
        self._stats.maps_started += 1
        self._stats.maps_open = len(self._maps)

    def end(self, run: OpenMap, outcome: str, error: BaseException | None = None) -> None:
        """End a map early: nothing more of it is sent. A map that has ended stays as it is."""
        if self._maps.pop(run.id, None) is None:
            return
        self._forget(run, outcome)
        run.end(error)
        if run.ledger.flights:
            self.to_withdraw.append(run)

    def check_end(self, run: OpenMap) -> None:
        """End a map that has all its outcomes, or whose source failed."""
        if run.id not in self._maps:
            return
        source, ledger = run.source, run.ledger
        if source.error is not None:
            open = source.has_items or ledger.flights or ledger.has_pieces or ledger.waiting_items
            if source.fails_at_once or not open:
                self.end(run, "failed", source.error)
        elif run.is_complete:
            del self._maps[run.id]
            self._forget(run, "failed" if ledger.failed else "ok")
            run.end()

    def _forget(self, run: OpenMap, outcome: str) -> None:
        run.source.wake = None
        if run.spec.constants and self.constants is not None:
            self.constants.release(run.spec.constants)
        self.jobs -= subjects.job_of(run.id) is not None
        self._scheduler.remove(run)
        self._stats.maps_ended[outcome] += 1
        self._stats.maps_open = len(self._maps)
        if (run.profile is not None or run.ledger.failed) and self.on_end is not None:
            self.on_end(run, outcome)

    # What messages say

    def decoder(self, report: Report) -> Callable[[memoryview], list[Any] | None] | None:
        """Return what decodes a report's values in place; None if they are needed as bytes.

        A stream may be read slowly, and small values take less room while they are encoded.
        """
        run = self._maps.get(report.map)
        if run is None or report.errors or run.spec.decode is None:
            return None
        if run.spec.early and report.size < LEAST * report.count:
            return None
        is_new = run.ledger.are_new(report.start, report.count)
        return run.spec.decode if is_new else None

    def accept(self, report: Report, pending: int, now: float, agent: str = "") -> None:
        """Process a report.

        Args:
            pending: Chunks that waited behind its chunk; negative: unknown.
            agent: The agent that sent it.
        """
        run = self._maps.get(report.map)
        if run is None:
            return
        stats, final = self._stats, report.final
        stats.compute_seconds += report.seconds
        run.stored_bytes += report.size
        flight = run.ledger.flights.get(report.number)
        run.learn(report, flight)
        if report.number > 1 or run.profile is not None:
            if run.profile is None:
                run.profile = Profile()
            run.profile.on_report(report, flight, now, self._roster.host(agent))
        seconds = report.seconds
        if flight is not None:
            flight.heard = now
        if report.errors and not report.count:
            self._postpone(run, report, now)
        if final is not None:
            cores = 0
            if flight is not None:
                stats.chunks += 1
                wait = max(0.0, now - flight.published - seconds)
                stats.queue_wait.observe(wait)
                if flight.piece.lane == "express":
                    stats.express_wait.add(wait)
                cores = self._roster.cores(flight.offer) if pending >= 0 else 0
            if pending >= 0:
                self._scheduler.window.steer(pending, cores, self._scheduler.weight)
            if final.crash is not None:
                # The core was useless until its next worker was ready: its map pays for that.
                seconds += max(CRASH_SECONDS, final.crash.start_seconds)
                stats.count_crash(run.spec.function, final.crash)
                if run.span is not None:
                    run.span.on_crash(final.crash.message, final.crash.item)
        self.settle(run, run.ledger.accept(report), seconds)
        if report.rest is not None:
            self._scheduler.requeue(run)

    def on_values_lost(self, report: Report) -> bool:
        """Send a chunk again whose values are gone; return whether its outcomes are known anyway.

        If it is not out any more, its items are or were sent again already.
        """
        run = self._maps.get(report.map)
        if run is None or run.ledger.are_done(report.start, report.count):
            return True
        if (flight := run.ledger.flights.get(report.number)) is not None:
            logger.info("map %s: the values of a chunk are lost; it runs again", run.id)
            self.take_back(run, flight)
        return False

    def _postpone(self, run: OpenMap, report: Report, now: float) -> None:
        """Keep the items that are to be tried once more until their time."""
        run.pace.learn(len(report.errors), report.seconds)
        run.ledger.postpone(report, now)
        self._stats.chunks_again["raised"] += len(report.errors)
        self.postponed.append(run)

    def resume(self, run: OpenMap, now: float) -> None:
        """Give a map turns again whose items have waited long enough."""
        if run.id in self._maps and run.ledger.resume(now):
            self._scheduler.requeue(run)

    def claim(self, claim: Claim, now: float) -> list[ChunkKey]:
        """Note which chunks an agent holds; return those that are no longer wanted."""
        unwanted = []
        for held in claim.chunks:
            settlement = None
            if (run := self._maps.get(held.map)) is not None:
                settlement = run.ledger.claim(
                    held.number,
                    claim.agent,
                    claim.host,
                    now,
                    is_again=held.deliveries > 1 or held.attempt > 1,
                    vanished=self._roster.vanished,
                )
                if settlement is not None:
                    self.settle(run, settlement)
            if settlement is None or settlement.ended is not None:
                unwanted.append((held.map, held.number))
        return unwanted

    def fail(self, chunks: list[Sent], message: str) -> None:
        """Fail every item of chunks that are too large for the broker."""
        for run, flight in self.out([(run.id, flight.number) for run, flight in chunks]):
            error = ErrorRecord(0, "unencodable", "ValueError", message)
            self.settle(run, run.ledger.fail_all(flight, error))

    def refuse(self, run: OpenMap, error: ErrorRecord) -> None:
        """Fail an item that cannot travel."""
        self.settle(run, Settlement(run.ledger.refuse(error)))

    def take_back(self, run: OpenMap, flight: Flight) -> None:
        """Return a chunk's items without an outcome, to be sent anew."""
        if flight.number in run.ledger.flights:
            self._stats.chunks_again["lost"] += 1
            run.ledger.withdraw(flight, self._roster.vanished)
            self._scheduler.on_landed(run, flight, flight.seconds)

    def settle(self, run: OpenMap, settlement: Settlement, seconds: float = 0.0) -> None:
        """Deliver new outcomes, and note a chunk that ended after ``seconds`` of compute."""
        if settlement.ended is not None:
            self._scheduler.on_landed(run, settlement.ended, seconds)
        for batch in settlement.batches:
            self._stats.items_done += batch.count
            for record in batch.errors:
                self._stats.errors[record.kind] += 1
            if batch.errors:
                self._on_failed(run, batch.errors)
        run.deliver(settlement.batches)
        self.check_end(run)

    def _on_failed(self, run: OpenMap, records: list[ErrorRecord]) -> None:
        function = run.spec.function
        self._scheduler.cost(function).items_failed += len(records)
        if self.failures is not None:
            self.failures.add(run.id, subjects.job_of(run.id), function, records)
