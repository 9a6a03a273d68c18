"""Items given out and values gathered in parts, whatever comes twice, late or for another."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dispatching import Parts as Desk
from dispatching import report_of
from hypotheses import examples
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.parts import ReportName, ServedParts
from jetmap.wire.messages import PartRequest, Report
from jetmap.wire.scattered import LEAST, scattered


class Bench(Desk):
    """A map of one chunk that is out, and its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(1 << 30)
        self.parts = ServedParts(self.maps, self.memory)
        self.run = self.open(3)
        [(_, self.flight)] = self.send()

    def name(self, agent: str = "a") -> ReportName:
        return agent, self.run.id, self.flight.number, self.flight.attempt, 0

    def report(self, size: int) -> Report:
        report = report_of(self.run, self.flight)
        report.values, report.size = b"", size
        return report

    def ask(self, run: OpenMap, offset: int, length: int, *, size: int = 0) -> bytes:
        items = size or len(self.flight.piece.items)
        request = PartRequest(run.id, self.flight.number, items, offset, length)
        return bytes(self.parts.items(request))


def test_scattered_items_are_joined_for_the_first_part() -> None:
    bench = Bench()
    items = scattered([b"x" * LEAST, b"y" * LEAST])
    assert items is not None
    bench.flight.piece.items = items
    assert bench.ask(bench.run, 0, 3) + bench.ask(bench.run, 3, 3 * LEAST) == bytes(items)
    assert type(bench.flight.piece.items) is bytes


def test_items_are_given_as_long_as_their_chunk_is_out() -> None:
    bench = Bench()
    items = bench.flight.piece.items
    assert bench.ask(bench.run, 0, 3) + bench.ask(bench.run, 3, 100) == items
    assert bench.ask(bench.run, 0, 3, size=len(items) + 1) == b"", "it has other items by now"
    bench.maps.accept(report_of(bench.run, bench.flight), 0, 1.0)
    assert bench.ask(bench.run, 0, 3) == b""


@examples(100)
@given(
    st.binary(min_size=1, max_size=200),
    st.integers(1, 60),
    st.integers(0, 30),
    st.randoms(use_true_random=False),
)
def test_values_are_whole_whatever_comes_twice_or_in_another_order(
    values: bytes, part: int, again: int, order: random.Random
) -> None:
    bench = Bench()
    offsets = list(range(0, len(values), part))
    sent = offsets + [order.choice(offsets) for _ in range(again)]
    order.shuffle(sent)
    for at in sent:
        assert bench.parts.add(bench.name(), at, values[at : at + part])
        assert bench.memory.used <= len(values)
    report = bench.report(len(values))
    # Another agent's parts of the same chunk are others.
    assert not bench.parts.complete("b", report)
    assert bench.parts.complete("a", report) and report.values == values
    assert bench.memory.used == 0
    assert not bench.parts.complete("a", bench.report(len(values))), "a repetition"


def test_a_smaller_broker_makes_smaller_parts() -> None:
    bench = Bench()
    values = bytes(range(100))
    for at, size in ((0, 64), (0, 30), (30, 30), (60, 30), (90, 30)):
        bench.parts.add(bench.name(), at, values[at : at + size])
    report = bench.report(100)
    assert bench.parts.complete("a", report) and report.values == values


def test_values_of_a_chunk_that_has_ended_are_dropped() -> None:
    bench = Bench()
    assert bench.parts.add(bench.name(), 0, b"x" * 10) and bench.memory.used == 10
    bench.parts.drop_ended()
    assert bench.memory.used == 10
    bench.maps.accept(report_of(bench.run, bench.flight), 0, 1.0)
    bench.parts.drop_ended()
    assert bench.memory.used == 0
    assert not bench.parts.add(bench.name(), 0, b"x"), "nobody wants it"
