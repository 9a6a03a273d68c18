"""What is sent next, and what is sent again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetmap import arrays
from jetmap.dispatch.ledger import Ledger, Piece
from jetmap.messages import Final, Report

quick = settings(max_examples=100, deadline=None)


ends = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted)


@quick
@given(st.integers(1, 20), st.lists(ends, max_size=4), st.lists(ends, max_size=4))
def test_only_what_is_missing_is_sent_again(
    count: int, before: list[list[int]], late: list[list[int]]
) -> None:
    """A chunk is taken back, and parts of it come all the same."""
    ledger = Ledger("json", 2)
    piece = Piece(100, count, msgspec.json.encode(list(range(count))))
    flight = ledger.send(piece, "main", "offer", 1.0, 0.0)
    reported = set[int]()

    def report(parts: list[list[int]]) -> None:
        for a, b in parts:
            b = min(b, count)
            if a < b:
                values = msgspec.json.encode(list(range(a, b)))
                ledger.take(Report("m", 1, 1, 100 + a, b - a, values, [], 0.1))
                reported.update(range(a, b))

    report(before)
    if flight.number in ledger.flights:
        ledger.withdraw(flight)
    report(late)

    again: list[int] = []
    while ledger.has_pieces:
        piece = ledger.next_piece()
        items = msgspec.json.decode(piece.items)
        assert items == list(range(piece.start - 100, piece.start - 100 + piece.count))
        again += items
    assert again == [item for item in range(count) if item not in reported]


@quick
@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 5)), min_size=1, max_size=6), st.data()
)
def test_a_map_is_charged_what_all_parts_of_a_chunk_took(
    parts: list[tuple[int, float]], data: st.DataObject
) -> None:
    """However they arrive, and however often."""
    ledger = Ledger("msgpack", 2)
    count = sum(size for size, _ in parts)
    piece = Piece(0, count, arrays.nulls(count, "msgpack"))
    flight = ledger.send(piece, "main", "offer", 0.05, 0.0)
    reports, start = [], 0
    for size, seconds in parts:
        final = Final(count) if start + size == count else None
        values = arrays.nulls(size, "msgpack")
        reports.append(Report("m", 1, 1, start, size, values, [], seconds, final))
        start += size
    order = data.draw(st.permutations(reports + data.draw(st.lists(st.sampled_from(reports)))))

    for report in order:
        settlement = ledger.take(report)
        if settlement.ended is not None:
            # What the scheduler charges for: the last report, less what is left of the estimate.
            charged = 0.05 + report.seconds - flight.seconds
            assert charged == pytest.approx(sum(seconds for _, seconds in parts))
    assert not ledger.flights
