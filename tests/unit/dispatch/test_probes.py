"""The choice of silent chunks that are published again, beside a broker that loses some."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.flight import Flight, Piece
from jetmap.dispatch.probes import PROBES, SWEEP_CHECKS, Probes
from jetmap.dispatch.recovery import TICK
from jetmap.wire import subjects
from jetmap.wire.timing import PATIENCE


class Queue:
    """Chunks that wait at a broker for a core that does not come, checked once a second."""

    def __init__(self, chunks: int, lane: str = "main", probes: Probes | None = None) -> None:
        self.probes = probes or Probes()
        self.now = 0.0
        self.lane = lane
        self.flights: list[Flight] = []
        self.there: set[int] = set()  # Numbers of the chunks that the broker has.
        self.publishes = 0
        self._losses: list[Flight] = []
        self.add(chunks)

    def add(self, chunks: int) -> None:
        for number in range(len(self.flights), len(self.flights) + chunks):
            flight = Flight(number, Piece(number, 1, b""), "offer", 0.0, self.now, self.now)
            flight.first, flight.confirmed = self.now, True
            flight.subject = subjects.work("pool", "offer", self.lane, "map", number)
            self.flights.append(flight)
            self.there.add(number)

    def lose(self, *numbers: int) -> None:
        self.there.difference_update(numbers)

    def silent(self) -> list[Flight]:
        return [flight for flight in self.flights if self.now - flight.heard >= PATIENCE]

    def check(self, seconds: float = TICK) -> list[Flight]:
        """Publish again what is chosen; the broker says what it did not have."""
        self.now += seconds
        for flight in self._losses:
            self.probes.on_lost(flight, self.now)
        chosen = self.probes.choose(self.silent(), self.now)
        self._losses = [flight for flight in chosen if flight.number not in self.there]
        for flight in chosen:
            flight.heard = self.now
            self.there.add(flight.number)
        self.publishes += len(chosen)
        return list(chosen)

    def seconds_until_whole(self) -> float:
        began = self.now
        while len(self.there) < len(self.flights):
            self.check()
        return self.now - began


def pass_time(queue: Queue, seconds: int) -> None:
    for _ in range(seconds):
        queue.check()


@given(st.lists(st.integers(0, PROBES), min_size=1, max_size=8), st.integers(0, 30))
@examples(60)
def test_every_silent_chunk_of_a_short_queue_is_published_again(
    batches: list[int], seconds: int
) -> None:
    queue = Queue(0)
    for chunks in batches:
        queue.add(chunks if len(queue.flights) + chunks <= PROBES else 0)
        queue.check()
        assert not queue.silent()
    for _ in range(seconds):
        queue.check()
        assert not queue.silent()


@given(st.integers(1, 1000), st.integers(0, 100))
@examples(20)
def test_few_chunks_of_a_long_queue_are_published_again_but_each_in_its_turn(
    chunks: int, seconds: int
) -> None:
    queue = Queue(chunks)
    pass_time(queue, seconds)
    most = max(PROBES, -(-chunks // SWEEP_CHECKS))
    assert queue.publishes <= most * seconds
    before = queue.now
    pass_time(queue, 2 * SWEEP_CHECKS)
    assert all(flight.heard > before for flight in queue.flights)


@given(st.integers(1, 1000), st.integers(0, 200))
@examples(20)
def test_a_broker_that_has_lost_everything_soon_has_it_again(chunks: int, seconds: int) -> None:
    queue = Queue(chunks)
    pass_time(queue, seconds)
    queue.lose(*range(chunks))
    # One probe is due, then the next check knows, and the last one published may be silent.
    assert queue.seconds_until_whole() <= 2 * (PATIENCE + TICK) + TICK


@given(st.integers(1, 1000), st.data())
@examples(20)
def test_a_chunk_that_is_lost_alone_is_found_in_its_turn(chunks: int, data: st.DataObject) -> None:
    queue = Queue(chunks)
    pass_time(queue, data.draw(st.integers(0, 100)))
    queue.lose(data.draw(st.integers(0, chunks - 1)))
    most = PATIENCE + TICK if chunks <= PROBES else SWEEP_CHECKS * TICK + 2 * PATIENCE
    assert queue.seconds_until_whole() <= most


def test_a_loss_says_nothing_of_other_queues() -> None:
    probes = Probes()
    lost, other = Queue(1000, probes=probes), Queue(1000, "express", probes)
    for queue in (lost, other):
        queue.now = PATIENCE
    probes.on_lost(lost.flights[0], PATIENCE)
    chosen = probes.choose(lost.silent() + other.silent(), PATIENCE)
    assert chosen.issuperset(lost.flights)
    assert len(chosen) == 1000 + max(PROBES, -(-1000 // SWEEP_CHECKS))


def test_after_a_reconnection_all_are_published_again_once() -> None:
    queue = Queue(1000)
    queue.now = PATIENCE
    queue.probes.on_reconnect(queue.now)
    assert len(queue.check()) == 1000
    pass_time(queue, 4)
    assert len(queue.check()) < 100


def test_chunks_that_were_claimed_and_those_without_an_ack_do_not_wait_for_a_turn() -> None:
    queue = Queue(1000)
    claimed, unconfirmed = queue.flights[900:902]
    claimed.claims["agent"] = 0.0
    unconfirmed.confirmed = False
    queue.now = PATIENCE
    assert {900, 901} <= {flight.number for flight in queue.check()}
