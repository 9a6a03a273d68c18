"""The lane for short maps: what is out, and which maps wait for it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatching import Parts, report_of
from hypotheses import examples
from jetmap.dispatch.express import AHEAD_CHUNKS, AHEAD_SECONDS, REFILL, Express
from jetmap.dispatch.flight import Flight, Piece
from jetmap.dispatch.open_map import OpenMap
from simulation import Simulation

CORES = 2
Sent = list[tuple[OpenMap, Flight]]


class Flood(Parts):
    """A dispatcher of two cores with more short maps than they can run at once."""

    def __init__(self, seconds: float | None = 0.01, cores: int = CORES) -> None:
        super().__init__(cores)
        if seconds is not None:
            self.scheduler.cost("f").learn(1000, 1000 * seconds, 0)
        self.seconds = seconds or 0.01

    def answer(self, sent: Sent) -> None:
        run, flight = sent.pop(0)
        self.maps.accept(report_of(run, flight, self.seconds * flight.piece.count), -1, 0.0)


def test_a_thousand_short_maps_wait_here_and_not_at_the_broker() -> None:
    flood = Flood()
    runs = [flood.open(1) for _ in range(1000)]
    out = flood.send()
    assert len(out) == round(AHEAD_SECONDS * CORES / 0.01)
    assert all(flight.piece.lane == "express" for _, flight in out)
    order = []
    while out:
        order.append(out[0][0])
        flood.answer(out)
        out += flood.send()
        assert len(out) <= round(AHEAD_SECONDS * CORES / 0.01) + 1
        waiting = bool(flood.scheduler._express.has_waiting)
        assert len(out) >= REFILL * AHEAD_SECONDS * CORES / 0.01 - 1 or not waiting
    assert order == runs
    assert len(flood.maps) == 0


def test_maps_of_an_unknown_function_leave_a_few_chunks_for_each_core() -> None:
    flood = Flood(None)
    for _ in range(100):
        flood.open(1)
    assert AHEAD_CHUNKS * CORES <= len(flood.send()) <= 10 * CORES


def test_a_function_waits_for_no_other() -> None:
    """The agents of one may be away, and its chunks stay where they are."""
    express: Express = Express(0.05, 0.002)
    piece = Piece(0, 1, b"", seconds=1.0)
    flood = Flood()
    one, other = flood.open(1), flood.open(1)
    other.spec = type(other.spec)(function="g", format="json")
    while not express.is_full("f", CORES):
        express.on_sent(one, piece)
    express.wait(one)
    assert not express.is_full("g", CORES)
    assert express.release(CORES) is None
    express.wait(other)
    assert express.release(CORES) is other
    landed = 0
    while (released := express.release(CORES)) is None:
        express.on_landed(one, piece)
        landed += 1
    assert released is one and not express.has_waiting
    assert landed <= AHEAD_CHUNKS * CORES / 2 + 1


def test_a_map_that_ends_while_it_waits_is_forgotten() -> None:
    flood = Flood()
    runs = [flood.open(1) for _ in range(100)]
    out = flood.send()
    for run in runs[50:]:
        flood.maps.end(run, "withdrawn")
    while out:
        flood.answer(out)
        out += flood.send()
    assert all(run.is_complete for run in runs[:50])
    assert not any(run.ledger.done for run in runs[50:])


def test_a_long_map_is_not_held_up_once_it_has_left_the_lane() -> None:
    flood = Flood(0.001)
    long = flood.open(100_000)
    first = flood.send()
    for _ in range(1000):
        flood.open(10)
    out = first + flood.send()
    assert any(run is long and flight.piece.lane == "main" for run, flight in out)


@examples(60)
@given(
    st.integers(1, 8),
    st.lists(st.integers(1, 30), min_size=1, max_size=60),
    st.floats(-5, 0),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_no_core_idles_beside_maps_that_wait(
    cores: int, sizes: list[int], power: float, is_known: bool, seed: int
) -> None:
    random = Random(seed)
    simulation = Simulation(cores)
    if is_known:
        simulation.scheduler.cost("f").learn(1000, 1000 * 10**power, 0)
    work, longest = 0.0, 0.0
    for items in sizes:
        costs = [10**power * random.uniform(0.5, 1.5) for _ in range(items)]
        work, longest = work + sum(costs), max(longest, *costs)
        simulation.open(costs)
    assert simulation.run() <= 1.1 * work / cores + longest + 0.2
    assert len(simulation.ended) == len(sizes)


@pytest.mark.parametrize("cores", [1, 16])
def test_what_is_out_is_counted_to_the_end(cores: int) -> None:
    flood = Flood(cores=cores)
    for items in (1, 7, 300):
        for _ in range(20):
            flood.open(items)
    out = flood.send()
    while out:
        flood.answer(out)
        out += flood.send()
    assert len(flood.maps) == 0 and not flood.scheduler._express._out
