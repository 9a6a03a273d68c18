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


class Simulation:
    """One pool.

    Args:
        hop: Seconds from the dispatcher to a worker, and back.
        overhead: Seconds that a core is busy with each chunk beside its items.
        speed: Factor of a core's seconds at a time.
    """

    def __init__(
        self,
        cores: int,
        *,
        hop: float = 0.0005,
        cutting: Cutting | None = None,
        overhead: float = 0.0,
        speed: Callable[[int, float], float] = lambda core, now: 1.0,
    ) -> None:
        self.cores, self.hop = cores, hop
        self.overhead, self.speed = overhead, speed
        self.cutting = (cutting or Cutting()).fitted(cores, 0.0)
        self.scheduler = Scheduler(self.cutting)
        self.now = 0.0
        self.chunks = self.given_back = 0
        self.by_core: dict[int, list[int]] = {core: [] for core in range(cores)}
        self._idle = list(range(cores))
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
        for map in self.scheduler.emptied:
            if map.is_complete:
                self.scheduler.remove(map)
        self.scheduler.emptied.clear()

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
                self._report(due, map, empty, -1)
                end = item + 1
            self.by_core[core].append(item)
            self.starts[core].append(clock)
            self.computed[map.id].append(item)
            clock += cost
            item += 1
            if clock - reported >= REPORT_SECONDS and item < end:
                self._report(clock, map, self._made(map, flight, start, item, clock - reported), -1)
                start, reported = item, clock
        last = self._made(map, flight, start, item, clock - reported)
        last.final = Final(item)
        self._report(clock, map, last, pending)
        self._at(clock + self.overhead + self.hop, lambda: self._free(core))

    def _free(self, core: int) -> None:
        self._idle.append(core)
        self._serve()

    def _made(self, map: OpenMap, flight: Flight, start: int, end: int, seconds: float) -> Report:
        values = arrays.nulls(end - start, "json")
        return Report(map.id, flight.number, 1, start, end - start, values, [], seconds)

    def _report(self, time: float, map: OpenMap, report: Report, pending: int) -> None:
        self._at(time + self.hop, lambda: self._receive(map, report, pending))

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
