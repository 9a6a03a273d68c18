"""Decide which chunks of open maps are lost, and which maps have no hope. No I/O, no clock.

``Recovery`` returns ``Actions``; the dispatcher carries them out. A chunk is silent when neither a
publish nor an agent has given a sign of it for PATIENCE seconds::

    published without an ack, nothing confirms it          publish it again, with an ack
    silent                                                 publish it again; of a long queue, some
                                                           at each check (``probes.py``)
    silent, and its offer is served by nobody              take it back, for another offer
    silent, of a job                                       read the store first: an agent may have
                                                           stored some of its outcomes
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from jetmap.wire import subjects
from jetmap.wire.presence import Presence
from jetmap.wire.timing import PATIENCE, RECLAIM, UNCONFIRMED_SECONDS

from .flight import Flight, Quarantine
from .open_map import OpenMap
from .probes import Probes
from .roster import Roster
from .sharing import Sent

TICK = 1.0  # Seconds between two checks.
HOPELESS_SECONDS = 10.0  # Seconds a map waits for workers that cannot start.


@dataclass
class Actions:
    """The things to do after a check.

    Attributes:
        gone: Agents that went silent without a goodbye; the roster has dropped them.
        unconfirmed: Chunks to publish again, since nothing shows that the broker took them.
        silent: Chunks to publish again, since no agent has claimed them.
        take_back: Chunks to remove from the stream; their items go to another offer.
        read_store: Maps of jobs whose stored outcomes are to be read first: ``on_store_read``
            follows and, once they are known, ``resume``.
        give_up: Maps that no worker can run any more, each with the reason.
    """

    gone: list[Presence] = field(default_factory=list)
    unconfirmed: list[Sent] = field(default_factory=list)
    silent: list[Sent] = field(default_factory=list)
    take_back: list[Sent] = field(default_factory=list)
    read_store: list[OpenMap] = field(default_factory=list)
    give_up: list[tuple[OpenMap, str]] = field(default_factory=list)


class Recovery:
    """Check all open maps every TICK. Times are seconds of one monotonic clock."""

    def __init__(self, roster: Roster, now: float) -> None:
        self.quarantine = Quarantine()
        self._roster = roster
        self._checked = now
        self._probes = Probes()
        self._due: set[Flight] = set()  # Silent chunks to publish again, by the last check.
        self._reading: set[OpenMap] = set()  # Maps whose stored outcomes are being read.
        self._hopeless: dict[OpenMap, float] = {}  # Since when no worker could run each map.

    def check(self, maps: Iterable[OpenMap], now: float, *, connected: bool) -> Actions | None:
        """Return what to do now; None if this process was frozen or cut off.

        Then answers wait in the socket, or at the broker, and nothing is overdue yet.
        """
        gap, self._checked = now - self._checked - TICK, now
        if gap > TICK or not connected:
            gap += 0.0 if connected else TICK
            self._roster.credit(gap)
            for map in maps:
                map.ledger.credit(gap)
            return None
        actions = Actions(gone=self._roster.expire(now))
        self.quarantine.expire(now)
        self._reading.intersection_update(maps)
        silent: list[tuple[OpenMap, list[Flight]]] = []
        for map in maps:
            for flight in map.ledger.unconfirmed(now, UNCONFIRMED_SECONDS):
                if flight.offer and now - flight.heard < PATIENCE:
                    actions.unconfirmed.append((map, flight))
            if flights := map.ledger.silent(now, PATIENCE):
                silent.append((map, flights))
        self._due = self._probes.choose(
            [flight for _, flights in silent for flight in flights if flight.offer], now
        )
        for map, flights in silent:
            due = [flight for flight in flights if self._is_due(map, flight)]
            if due and map.ledger.seen is None:
                self._recover(map, due, now, actions)
            elif due and map not in self._reading:
                self._reading.add(map)
                actions.read_store.append(map)
        self._find_hopeless(maps, now, actions)
        return actions

    def on_store_read(self, map: OpenMap) -> None:
        """Record that reading a job's outcomes has ended; if it failed, it is tried again."""
        self._reading.discard(map)

    def resume(self, map: OpenMap, now: float) -> Actions:
        """Return what to do with the silent chunks of a job whose stored outcomes were read."""
        actions = Actions()
        silent = map.ledger.silent(now, PATIENCE)
        actions.take_back = [(map, flight) for flight in silent if map.ledger.is_begun(flight)]
        untouched = [flight for flight in silent if not map.ledger.is_begun(flight)]
        due = [flight for flight in untouched if self._is_due(map, flight)]
        self._recover(map, due, now, actions)
        return actions

    def on_reconnect(self, maps: Iterable[OpenMap], now: float) -> None:
        """Make every chunk that no agent claims within RECLAIM seconds silent.

        The stream may be new and empty.
        """
        self._probes.on_reconnect(now)
        soon = now - PATIENCE + RECLAIM
        for map in maps:
            for flight in map.ledger.flights.values():
                flight.heard = min(flight.heard, soon)

    def on_lost(self, flights: Iterable[Flight], now: float) -> None:
        """Record that the broker did not have these chunks when they were published again."""
        for flight in flights:
            self._probes.on_lost(flight, now)

    def _is_due(self, map: OpenMap, flight: Flight) -> bool:
        """Return whether to do something about a silent chunk now."""
        return flight in self._due or map.is_held or not self._roster.is_served(flight.offer)

    def _recover(self, map: OpenMap, silent: list[Flight], now: float, actions: Actions) -> None:
        """Publish silent chunks again.

        If a chunk is still in the stream, the broker refuses the second one, which does no harm.
        Those of a map that is held go back to it: no agent has begun them.
        """
        for flight in silent:
            if map.is_held:
                actions.take_back.append((map, flight))
            elif flight.offer and self._roster.is_served(flight.offer):
                actions.silent.append((map, flight))
            elif self._roster.offer(map.spec.function, map.spec.ref) is not None:
                actions.take_back.append((map, flight))
            else:
                flight.heard = now

    def _find_hopeless(self, maps: Iterable[OpenMap], now: float, actions: Actions) -> None:
        """Give up the maps whose function no worker can import any more. Jobs wait instead."""
        before, self._hopeless = self._hopeless, {}
        for map in maps:
            function, ref = map.spec.function, map.spec.ref
            if self._roster.offer(function, ref) is not None or subjects.job_of(map.id):
                continue
            failure = self._roster.failure_of(function)
            if failure is None:
                continue
            since = self._hopeless[map] = before.get(map, now)
            if now - since > HOPELESS_SECONDS:
                actions.give_up.append((map, failure))
