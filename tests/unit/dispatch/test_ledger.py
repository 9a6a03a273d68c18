"""Whatever happens to its chunks, a map ends with exactly one outcome for each item."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatching import StoredItems
from hypotheses import examples
from jetmap.dispatch.costs import Cutting
from jetmap.dispatch.flight import Flight, Piece, Settlement
from jetmap.dispatch.intervals import IntervalSet
from jetmap.dispatch.ledger import VANISHED_LIMIT, Ledger
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.objects import Objects
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.outcomes import Batch
from jetmap.dispatch.scheduler import Scheduler
from jetmap.dispatch.sources import Source
from jetmap.wire import arrays
from jetmap.wire import messages as wire
from jetmap.wire.messages import Crash, ErrorRecord, Final, Format, Report
from jetmap.wire.timing import ACK_WAIT, BEAT, PATIENCE

MAX_ITEM = 200
TOO_LARGE = "x" * 300
AGENTS = [f"agent{n}" for n in range(4)]


@dataclass(frozen=True)
class Message:
    """A chunk as it was published: it may have given items back since."""

    flight: Flight
    attempt: int
    piece: Piece


@dataclass(eq=False)
class Run:
    """A chunk as one agent holds it. at: the item it is in; reported: items before it are.
    stop: the item before which it ends, if it saw that it shall."""

    agent: str
    message: Message
    elements: list[Any]
    at: int
    reported: int
    stop: int | None = None
    unreported: list[Any] = field(default_factory=list)
    last: Report | None = None

    @property
    def number(self) -> int:
        return self.message.flight.number

    @property
    def start(self) -> int:
        return self.message.piece.start

    @property
    def end(self) -> int:
        return self.start + len(self.elements)


class Rest:
    """The items of a job that goes on: those that have no outcome yet."""

    fails_at_once = True
    error = None

    def __init__(self, items: list[Any], encode: Callable[[Any], bytes], seen: IntervalSet) -> None:
        self.wake: Callable[[], None] | None = None
        self.total = len(items)
        self._items, self._encode = items, encode
        self._left = deque(n for a, b in seen.missing(0, len(items)) for n in range(a, b))
        self._taken = 0

    @property
    def remaining(self) -> int:
        return self.total - self._taken

    @property
    def has_items(self) -> bool:
        return bool(self._left)

    def take(self, count: int, max_bytes: int) -> Piece | None:
        if not self._left:
            return None
        start = end = self._left.popleft()
        end += 1
        while self._left and self._left[0] == end < start + count:
            self._left.popleft()
            end += 1
        self._taken = end
        return Piece(start, end - start, self._encode(self._items[start:end]))


AGAIN = object()  # The value of an item that is to be sent once more.
WAIT = 1.5  # Seconds that such an item waits.


def needs_another(item: Any, tries: int) -> bool:
    """Return whether the worker asks for one more try after ``tries`` earlier ones."""
    return isinstance(item, int) and item % 5 == 0 and tries < item % 4


def function(item: Any) -> Any:
    if item % 3 == 0:
        raise ValueError(item)
    return [item, -item]


class Map(RuleBasedStateMachine):
    """A dispatcher's classes, and a world around them that loses, repeats and reorders."""

    @initialize(
        format=st.sampled_from(["json", "msgpack"]),
        items=st.lists(
            st.integers(0, 50) | st.sampled_from([object(), TOO_LARGE]), min_size=5, max_size=40
        ),
        attempts=st.integers(1, 3),
        cores=st.integers(1, 4),
        has_length=st.booleans(),
        known=st.sampled_from([0, 5, 10]),
        seen=st.none() | st.sets(st.integers(0, 39)),
    )
    def open(
        self,
        format: Format,
        items: list[Any],
        attempts: int,
        cores: int,
        has_length: bool,
        known: int,
        seen: set[int] | None,
    ) -> None:
        """known: items that computed for a chunk's duration in an earlier map. seen: of a job
        that goes on, those that have their outcome already."""
        encode = msgspec.json.encode if format == "json" else msgspec.msgpack.encode
        self.format: Format = format
        self.encode = encode
        self.items, self.attempts, self.cores = items, attempts, cores
        self.scheduler = Scheduler(Cutting(seconds=0.05, least=0.002, max_bytes=100))
        self.seen = IntervalSet()
        source: Source
        if seen is None:
            source = Objects(
                items if has_length else iter(items), encode, keep=False, max_item=MAX_ITEM
            )
        else:
            # What is stored can travel.
            items[:] = [item if isinstance(item, int) else 1 for item in items]
            for index in seen & set(range(len(items))):
                self.seen.add(index, index + 1)
            source = Rest(items, encode, self.seen)
        self.map = OpenMap(
            "map",
            MapSpec(function="f", format=format),
            source,
            Ledger(format, attempts, StoredItems(*self.seen.ranges())),
            self.scheduler.cost("f"),
            max_buffer=1 << 20,
            memory=Memory(1 << 30),
        )
        self.map.cost.learn(known, 0.05, known)
        self.ledger = self.map.ledger
        self.scheduler.add(self.map)
        self.now = 100.0
        self.queue: dict[int, Message] = {}  # What the broker could deliver.
        self.runs: list[Run] = []
        self.unconfirmed: list[Run] = []
        self.network: list[Report] = []
        self.outcomes: dict[int, ErrorRecord | Any] = {}
        # Why an item may fail other than by itself.
        self.deaths: Counter[int] = Counter()
        self.timeouts: set[int] = set()
        self.abandoned: Counter[int] = Counter()
        self.vanished: dict[str, float] = {}
        self.hosts = {name: f"{name}-1" for name in AGENTS}  # An agent that is started anew.

    # The dispatcher's side

    def send(self) -> None:
        while (turn := self.scheduler.next(self.cores)) is not None:
            _, piece = turn
            if piece.error is not None:
                self.give(self.ledger.refuse(piece.error))
                continue
            assert len(arrays.split(piece.items, self.format)) == piece.count
            flight = self.ledger.send(piece, "offer", self.now)
            self.queue[flight.number] = Message(flight, flight.attempt, flight.piece)

    @rule(seconds=st.sampled_from([BEAT, PATIENCE]))
    def time_passes(self, seconds: float) -> None:
        """Let every living agent claim at each beat, and send silent chunks again."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + BEAT)
            for run in [*self.runs, *self.unconfirmed]:
                self.claim(run)
            if self.ledger.resume(self.now):
                self.scheduler.requeue(self.map)
        for flight in self.ledger.silent(self.now, PATIENCE):
            if flight.number in self.ledger.flights:
                flight.attempt += 1
                flight.heard = self.now
                # The broker refuses what it still has.
                message = Message(flight, flight.attempt, flight.piece)
                self.queue.setdefault(flight.number, message)

    @rule(
        data=st.data(),
        what=st.sampled_from(["frozen", "moved", "lost", "vanished", "dropped", "early"]),
    )
    def mishap(self, data: st.DataObject, what: str) -> None:
        if what == "frozen":
            self.now += 30
            self.ledger.credit(30)
        elif what == "moved" and self.ledger.flights:
            flight = data.draw(st.sampled_from(list(self.ledger.flights.values())))
            self.queue.pop(flight.number, None)
            self.ledger.withdraw(flight, self.vanished)
            self.scheduler.on_landed(self.map, flight, flight.seconds)
        elif what == "lost" and self.queue:
            del self.queue[data.draw(st.sampled_from(sorted(self.queue)))]
        elif what == "vanished" and self.runs:
            run = data.draw(st.sampled_from(self.runs))
            self.vanish(run.agent)
        elif what == "dropped" and self.runs:
            # Its agent lives, and let go of it without a word: we were out of reach.
            run = data.draw(st.sampled_from(self.runs))
            self.runs.remove(run)
            self.queue.setdefault(run.number, run.message)
        elif what == "early" and self.runs:
            self.claim(data.draw(st.sampled_from(self.runs)))

    def vanish(self, agent: str) -> None:
        """The agent's host dies; its chunks are delivered again when their leases run out."""
        lost = [run for run in self.runs if run.agent == agent]
        self.runs = [run for run in self.runs if run.agent != agent]
        self.unconfirmed = [run for run in self.unconfirmed if run.agent != agent]
        for run in lost:
            self.abandoned.update(range(run.start, run.end))
        self.vanished[agent] = self.now
        name, _, count = agent.partition("-")
        self.hosts[name] = f"{name}-{int(count) + 1}"
        self.time_passes(ACK_WAIT)
        for run in lost:
            self.queue.setdefault(run.number, run.message)

    def settle(self, settlement: Settlement, seconds: float = 0.0) -> None:
        if settlement.ended is not None:
            self.scheduler.on_landed(self.map, settlement.ended, seconds)
        self.give(settlement.batches)

    def give(self, batches: list[Batch]) -> None:
        for batch in batches:
            values = msgspec.json.decode(batch.values) if self.format == "json" else None
            values = msgspec.msgpack.decode(batch.values) if values is None else values
            errors = {record.index: record for record in batch.errors}
            assert len(values) == batch.count
            assert set(errors) <= set(range(batch.start, batch.start + batch.count))
            for index, value in enumerate(values, batch.start):
                assert index not in self.outcomes, "an item has two outcomes"
                self.outcomes[index] = errors.get(index, value)
                if isinstance(value, list):
                    assert not needs_another(self.items[index], batch.tries - 1)

    # The world's side

    @rule(data=st.data(), agents=st.lists(st.sampled_from(AGENTS), min_size=1, max_size=4))
    def deliver(self, data: st.DataObject, agents: list[str]) -> None:
        self.send()
        for agent in agents:
            if self.queue:
                number = data.draw(st.sampled_from(sorted(self.queue)))
                self.start(number, agent)
                # Else its lease runs out, and the broker delivers it to somebody else too.
                if data.draw(st.integers(0, 3)):
                    del self.queue[number]

    def start(self, number: int, name: str) -> None:
        message = self.queue[number]
        agent = self.hosts[name]
        if any(r.agent == agent and r.number == number for r in self.runs):
            return
        items = msgspec.json if self.format == "json" else msgspec.msgpack
        piece = message.piece
        elements = items.decode(piece.items)
        assert elements == self.items[piece.start : piece.start + piece.count]
        run = Run(agent, message, elements, piece.start, piece.start)
        self.runs.append(run)

    @rule(data=st.data(), count=st.integers(0, 20), report=st.booleans())
    def compute(self, data: st.DataObject, count: int, report: bool) -> None:
        if not self.runs:
            return
        run = data.draw(st.sampled_from(self.runs))
        self.advance(run, count)
        if report:
            self.report(run, None)

    @rule(data=st.data(), count=st.integers(0, 50))
    def finish(self, data: st.DataObject, count: int) -> None:
        """Finish the chunk, or a part of it if the budget is spent."""
        if not self.runs:
            return
        run = data.draw(st.sampled_from(self.runs))
        self.advance(run, count)
        self.report(run, Final(run.at))

    @rule(data=st.data(), seen=st.booleans())
    def give_back(self, data: st.DataObject, seen: bool) -> None:
        """The item in progress takes too long: those behind it run elsewhere.

        seen: whether the worker sees that it shall stop there.
        """
        slow = [run for run in self.runs if run.stop is None and run.at < run.end - 1]
        if not slow:
            return
        run = data.draw(st.sampled_from(slow))
        rest = wire.Rest(run.at + 1, 0.1)
        attempt, nothing = run.message.attempt, self.encode([])
        self.network.append(
            Report("map", run.number, attempt, run.at, 0, nothing, [], 0.0, None, rest=rest)
        )
        if seen:
            run.stop = run.at + 1

    @rule(
        data=st.data(),
        count=st.integers(0, 20),
        reason=st.sampled_from(["died", "died", "timeout", "stopped"]),
        known=st.booleans(),
    )
    def crash(self, data: st.DataObject, count: int, reason: Any, known: bool) -> None:
        if not self.runs:
            return
        run = data.draw(st.sampled_from(self.runs))
        self.advance(run, count)
        guilty = run.at if known and run.at < run.end and reason != "stopped" else None
        if guilty is not None and reason == "timeout":
            self.timeouts.add(guilty)
        elif reason == "died":
            in_it = [guilty] if guilty is not None else range(run.start, run.end)
            self.deaths.update(in_it)
        self.final(run, Crash(guilty, reason, "the worker died", host="h"))

    @rule(data=st.data(), count=st.integers(1, 5), again=st.booleans())
    def receive(self, data: st.DataObject, count: int, again: bool) -> None:
        for _ in range(min(count, len(self.network))):
            report = data.draw(st.sampled_from(self.network))
            if not again:
                self.network.remove(report)
            self.take(report)

    def take(self, report: Report) -> None:
        self.map.learn(report, self.ledger.flights.get(report.number))
        if report.errors and not report.count:
            self.ledger.postpone(report, self.now)
        self.settle(self.ledger.accept(report), report.seconds)
        if report.rest is not None:
            self.scheduler.requeue(self.map)
        self.unconfirmed = [run for run in self.unconfirmed if run.last is not report]

    def claim(self, run: Run) -> None:
        """Claim a chunk; the dispatcher answers whether it is wanted."""
        settlement = self.ledger.claim(run.number, run.agent, "h", self.now, vanished=self.vanished)
        if settlement is not None:
            self.settle(settlement)
        if settlement is None or settlement.ended is not None:
            held = self.runs if run in self.runs else self.unconfirmed
            held.remove(run)

    def advance(self, run: Run, count: int) -> None:
        end = run.end if run.stop is None else max(run.at, run.stop)
        for item in run.elements[run.at - run.start : end - run.start][:count]:
            try:
                if needs_another(item, run.message.piece.tries):
                    run.unreported.append(AGAIN)
                else:
                    run.unreported.append(function(item))
            except ValueError as error:
                run.unreported.append(error)
            run.at += 1

    def report(self, run: Run, final: Final | None) -> None:
        number, attempt = run.number, run.message.attempt
        tries = run.message.piece.tries
        while AGAIN in run.unreported:
            at = run.unreported.index(AGAIN)
            after = run.unreported[at + 1 :]
            run.unreported = run.unreported[:at]
            self.report_outcomes(run, None)
            index = run.reported + at
            again = ErrorRecord(index, "again", "ValueError", "", None, {"tries": 1, "wait": WAIT})
            self.network.append(
                Report("map", number, attempt, index + 1, 0, self.encode([]), [again], 0.1)
            )
            run.unreported, run.reported = after, index + 1
        self.report_outcomes(run, final, tries + 1)
        run.unreported, run.reported = [], run.at

    def report_outcomes(self, run: Run, final: Final | None, tries: int = 1) -> None:
        values, start = run.unreported, run.reported
        errors = [
            ErrorRecord(index, "raised", "ValueError", str(value))
            for index, value in enumerate(values, start)
            if isinstance(value, ValueError)
        ]
        plain = [None if isinstance(value, ValueError) else value for value in values]
        number, attempt = run.number, run.message.attempt
        seconds = 0.001 * len(values)
        report = Report(
            "map", number, attempt, start, len(values), self.encode(plain), errors, seconds, final
        )
        report.tries = tries
        self.network.append(report)
        if final is not None:
            self.runs.remove(run)
            self.unconfirmed.append(run)
            run.last = report

    def final(self, run: Run, crash: Crash) -> None:
        """Report the end of a chunk; unreported results die with the worker."""
        run.unreported = []
        run.at = run.reported
        self.report(run, Final(run.reported, crash))

    # What must hold

    @invariant()
    def the_window_counts_what_is_out(self) -> None:
        if hasattr(self, "ledger"):
            out = sum(flight.piece.lane == "main" for flight in self.ledger.flights.values())
            assert self.scheduler.window.in_flight == out

    @invariant()
    def done_counts_outcomes(self) -> None:
        if hasattr(self, "ledger"):
            errors = sum(isinstance(o, ErrorRecord) for o in self.outcomes.values())
            assert self.ledger.done == len(self.outcomes) + self.seen.size
            assert self.ledger.failed == errors

    def teardown(self) -> None:
        """Let nothing go wrong from now on: the map must end with the right outcomes."""
        if not hasattr(self, "ledger"):
            return
        for _ in range(200):
            self.send()
            for number in list(self.queue):
                self.start(number, AGENTS[0])
                del self.queue[number]
            for run in list(self.runs):
                self.advance(run, run.end)
                self.report(run, Final(run.at))
            while self.network:
                self.take(self.network.pop())
            if self.map.is_complete:
                break
            self.time_passes(PATIENCE)
        assert self.map.is_complete
        assert not self.ledger.has_pieces
        assert self.map.total == len(self.items)
        rest = [n for a, b in self.seen.missing(0, len(self.items)) for n in range(a, b)]
        assert sorted(self.outcomes) == rest, "each item has one outcome, those before too"
        for index in rest:
            self.check(index, self.items[index], self.outcomes[index])

    def check(self, index: int, item: Any, outcome: Any) -> None:
        if not isinstance(outcome, ErrorRecord):
            assert outcome == function(item)
            return
        assert outcome.index == index
        if outcome.kind == "unencodable":
            assert item is TOO_LARGE or not isinstance(item, int)
        elif outcome.kind == "raised":
            assert item % 3 == 0 and outcome.message == str(item)
        elif outcome.kind == "timeout":
            assert index in self.timeouts
        else:
            assert outcome.kind == "lost"
            died = self.deaths[index] >= self.attempts
            assert died or self.abandoned[index] >= VANISHED_LIMIT, "blamed, and was in no crash"


Map.TestCase.settings = examples(
    200,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestMap = Map.TestCase
