"""Maps on simulated cores: the real deciding classes, events in place of processes and a broker.

Only time is made up. Chunks are cut, sent and settled by ``Scheduler``, ``Ledger``, ``OpenMap``
and ``Window``; ``Budget`` says what a worker gives back. An idle core takes the first express
chunk, then the first of the main lane, as agents do.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

from jetmap.dispatch.costs import Cutting
from jetmap.dispatch.flight import Flight
from jetmap.dispatch.ledger import Ledger
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.scheduler import Scheduler
from jetmap.dispatch.sharing import is_small
from jetmap.dispatch.sources import RawItems
from jetmap.wire import arrays
from jetmap.wire.budget import Budget
from jetmap.wire.messages import Final, Report, Rest

REPORT_SECONDS = 0.1  # Seconds between two reports of a chunk, as in ``worker.compute.Limits``.


def greedy(costs: Sequence[float], cores: int) -> float:
    """Seconds that single items take, handed out in order to idle cores."""
    free = [0.0] * cores
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


class Endless(RawItems):
    """A list whose length is unknown until it ends, like a generator's."""

    def __init__(self, items: int) -> None:
        super().__init__([b"0"] * items, "json")
        self._size = items
        self._told()

    def _told(self) -> None:
        self.total = self._size if self._next >= self._size else None  # type: ignore[assignment]

    @property
    def has_items(self) -> bool:
        return self._next < self._size

    @property
    def remaining(self) -> int | None:  # type: ignore[override]
        return None if self.total is None else 0

    def take(self, count: int, max_bytes: int):  # type: ignore[no-untyped-def]
        taken = super().take(count, max_bytes)
        self._told()
        return taken


class _Running:
    """A chunk that a core computes, whose whole course is known when it begins."""

    def __init__(self, core: int, map: OpenMap, flight: Flight, pending: int, began: float) -> None:
        self.core, self.map, self.flight, self.pending = core, map, flight, pending
        self.ends: list[float] = []  # When each of its items ends.
        self.parts = [(began, flight.piece.start)]  # When each report began, and its first item.
        self.until = float("inf")  # What comes later does not come.


class Simulation:
    """One pool.

    Args:
        hop: Seconds from the dispatcher to a worker, and back.
        overhead: Seconds that a core is busy with each chunk beside its items.
        speed: Factor of a core's seconds at a time.
        hurries: Whether long chunks end early when another map comes, as today's agents end them.
    """

    def __init__(
        self,
        cores: int,
        *,
        hop: float = 0.0005,
        cutting: Cutting | None = None,
        overhead: float = 0.0,
        speed: Callable[[int, float], float] = lambda core, now: 1.0,
        hurries: bool = True,
    ) -> None:
        self.cores, self.hop = cores, hop
        self.overhead, self.speed = overhead, speed
        self.cutting = (cutting or Cutting()).fitted(cores, 0.0, hurries=hurries)
        self.scheduler = Scheduler(self.cutting)
        self.now = 0.0
        self.chunks = self.given_back = self.hurries = 0
        self.by_core: dict[int, list[int]] = {core: [] for core in range(cores)}
        self._asked: dict[str, int] = {}  # The last chunk of each map that is to end early.
        self._idle = list(range(cores))
        self._running: dict[int, _Running] = {}
        self._lanes: dict[str, deque[tuple[OpenMap, Flight, Budget]]] = {
            "express": deque(),
            "main": deque(),
        }
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._costs: dict[str, Sequence[float]] = {}
        self.computed: dict[str, list[int]] = {}
        self.first: dict[str, float] = {}  # When each map's first outcome came.
        self.ended: dict[str, float] = {}  # When its last one did.
        self.starts: dict[int, list[float]] = {core: [] for core in range(cores)}

    def open(
        self,
        costs: Sequence[float],
        *,
        function: str = "f",
        is_endless: bool = False,
        early: bool = False,
        whole: bool = False,
    ) -> OpenMap:
        items = len(costs)
        map = OpenMap(
            str(len(self._costs)),
            MapSpec(function=function, format="json", early=early, whole=whole),
            Endless(items) if is_endless else RawItems([b"0"] * items, "json"),
            Ledger("json", 2),
            self.scheduler.cost(function),
            max_buffer=1 << 30,
            memory=Memory(1 << 30),
        )
        self._costs[map.id] = costs
        self.computed[map.id] = []
        self.scheduler.add(map)
        return map

    def join(self, cores: int, at: float, *, announced: int | None = None) -> None:
        """Let cores join the pool later, announced as idle. announced: cores that say so."""

        def arrive() -> None:
            new = range(self.cores, self.cores + cores)
            self.cores += cores
            for core in new:
                self.by_core[core], self.starts[core] = [], []
                self._idle.append(core)
            self._serve()
            self.scheduler.on_idle(cores if announced is None else announced, lambda map: True)
            self._pump()

        self._at(at, arrive)

    def at(self, time: float, act: Callable[[], object]) -> None:
        """Do something at a time of this simulation, and send what may be sent then."""
        self._at(time, lambda: (act(), self._pump()))

    def run(self) -> float:
        """Run until nothing happens any more. Returns that time."""
        self._pump()
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
        return self.now

    def _at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), act))

    def _pump(self) -> None:
        self._send_hurried()
        while (turn := self.scheduler.next(self.cores)) is not None:
            map, piece = turn
            flight = map.ledger.send(piece, "offer", self.now)
            budget = self.cutting.budget(
                flight.seconds, flight.piece.count, is_sure=map.pace.is_sure
            )
            self.chunks += 1
            if is_small(map, piece):
                self.scheduler.sharing.add(map, flight)
                self.scheduler.sharing.take(self.cores)
            self._at(self.now + self.hop, lambda c=(map, flight, budget): self._arrive(*c))
        self._send_hurried()
        for map in self.scheduler.emptied:
            if map.is_complete:
                self.scheduler.remove(map)
        self.scheduler.emptied.clear()

    def _send_hurried(self) -> None:
        self.hurries += len(self.scheduler.hurried)
        for map, chunk in self.scheduler.hurried:
            self._at(self.now + self.hop, lambda of=(map, chunk): self._hurry(*of))
        self.scheduler.hurried.clear()

    def _arrive(self, map: OpenMap, flight: Flight, budget: Budget) -> None:
        self._lanes[flight.piece.lane].append((map, flight, budget))
        self._serve()

    def _serve(self) -> None:
        for lane in ("express", "main"):
            queue = self._lanes[lane]
            while self._idle and queue:
                map, flight, budget = queue.popleft()
                pending = len(queue) if lane == "main" else -1
                self._compute(self._idle.pop(), map, flight, budget, pending)

    def _compute(
        self, core: int, map: OpenMap, flight: Flight, budget: Budget, pending: int
    ) -> None:
        piece, costs = flight.piece, self._costs[map.id]
        began = clock = reported = self.now
        self._running[core] = chunk = _Running(core, map, flight, pending, began)
        start = item = piece.start
        end = piece.start + piece.count
        while item < end and not budget.is_spent(item - piece.start, clock - began):
            due = began + budget.until(item + 1 - piece.start)
            cost = costs[item] * self.speed(core, clock)
            if item + 1 < end and clock + cost > due:
                # Its agent sees that the item in progress takes too long.
                due = max(due, clock)
                rest = Rest(item + 1, due - began)
                empty = Report(map.id, flight.number, 1, item, 0, b"[]", [], 0.0, None, rest=rest)
                self._report(due, chunk, empty, -1)
                end = item + 1
            self.by_core[core].append(item)
            self.starts[core].append(clock)
            self.computed[map.id].append(item)
            clock += cost
            item += 1
            chunk.ends.append(clock)
            if clock - reported >= REPORT_SECONDS and item < end:
                made = self._made(map, flight, start, item, clock - reported)
                self._report(clock, chunk, made, -1)
                start, reported = item, clock
                chunk.parts.append((clock, item))
        self._end(chunk, clock, item)
        longest = self.cutting.longest
        if flight.number <= self._asked.get(map.id, 0) and budget.until(1) > 2.01 * longest:
            self._at(began + longest, lambda: self._end_early(chunk))

    def _hurry(self, map: OpenMap, number: int) -> None:
        """End the chunks of a map that are being computed, up to this one, with their items in
        progress.
        """
        self._asked[map.id] = number
        for chunk in list(self._running.values()):
            if chunk.map is map and chunk.flight.number <= number:
                self._end_early(chunk)

    def _end_early(self, chunk: _Running) -> None:
        """End a chunk with its item in progress, unless it has ended."""
        done = sum(end <= self.now for end in chunk.ends) + 1
        if self._running.get(chunk.core) is not chunk or done >= len(chunk.ends):
            return
        if chunk.until < float("inf"):
            return
        for taken_back in chunk.ends[done:]:
            assert taken_back > self.now
            self.by_core[chunk.core].pop()
            self.starts[chunk.core].pop()
        first = chunk.flight.piece.start + done
        not_begun = set(range(first, first + len(chunk.ends) - done))
        computed = self.computed[chunk.map.id]
        computed[:] = [item for item in computed if item not in not_begun]
        until = chunk.ends[done - 1]
        chunk.until = until
        chunk.parts = [part for part in chunk.parts if part[0] <= until]
        self._end(chunk, until, first)

    def _end(self, chunk: _Running, at: float, item: int) -> None:
        """Report the rest of a chunk, which ends before ``item``, and free its core."""
        map, flight = chunk.map, chunk.flight
        reported, start = chunk.parts[-1]
        last = self._made(map, flight, start, item, at - reported)
        last.final = Final(item)
        self._report(at, chunk, last, chunk.pending)
        self._later(at, self.overhead + self.hop, chunk, lambda: self._free(chunk.core))

    def _later(self, at: float, delay: float, chunk: _Running, act: Callable[[], None]) -> None:
        """Act some time after ``at``, unless the chunk has ended before that."""
        self._at(at + delay, lambda: act() if at <= chunk.until else None)

    def _free(self, core: int) -> None:
        self._running.pop(core, None)
        self._idle.append(core)
        self._serve()

    def _made(self, map: OpenMap, flight: Flight, start: int, end: int, seconds: float) -> Report:
        values = arrays.nulls(end - start, "json")
        return Report(map.id, flight.number, 1, start, end - start, values, [], seconds)

    def _report(self, time: float, chunk: _Running, report: Report, pending: int) -> None:
        self._later(time, self.hop, chunk, lambda: self._receive(chunk.map, report, pending))

    def _receive(self, map: OpenMap, report: Report, pending: int) -> None:
        flight = map.ledger.flights.get(report.number)
        map.learn(report, flight)
        if pending >= 0 and report.final is not None:
            self.scheduler.window.steer(pending, self.cores)
        settlement = map.ledger.accept(report)
        if report.count:
            self.first.setdefault(map.id, self.now)
            self.ended[map.id] = self.now
        if settlement.ended is not None:
            self.scheduler.on_landed(map, settlement.ended, report.seconds)
        if report.rest is not None:
            self.given_back += 1
            self.scheduler.requeue(map)
        if map.is_complete:
            self.scheduler.remove(map)
        self._pump()
