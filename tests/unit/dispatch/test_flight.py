"""The life of one chunk: parts in any order, claims, losses."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.flight import Piece, Quarantine
from jetmap.dispatch.ledger import VANISHED_LIMIT, Ledger
from jetmap.wire import arrays
from jetmap.wire.messages import ErrorRecord, Final, Report
from jetmap.wire.scattered import LEAST, scattered
from jetmap.wire.timing import ACK_WAIT, HELD, SUSPECT_SECONDS

quick = examples(100)


def error(index: int) -> ErrorRecord:
    return ErrorRecord(index, "raised", "ValueError", "no")


ends = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted)


@quick
@given(st.integers(1, 20), st.lists(ends, max_size=4), st.lists(ends, max_size=4))
def test_only_what_is_missing_is_sent_again(
    count: int, before: list[list[int]], late: list[list[int]]
) -> None:
    """A chunk is taken back, and parts of it come all the same."""
    ledger = Ledger("json", 2)
    piece = Piece(100, count, msgspec.json.encode(list(range(count))))
    flight = ledger.send(piece, "offer", 0.0)
    reported = set[int]()
    outcomes: dict[int, object] = {}

    def report(parts: list[list[int]]) -> None:
        for a, b in parts:
            b = min(b, count)
            if a < b:
                values = msgspec.json.encode([n if n % 3 else None for n in range(a, b)])
                errors = [error(100 + n) for n in range(a, b) if n % 3 == 0]
                settlement = ledger.accept(Report("m", 1, 1, 100 + a, b - a, values, errors, 0.1))
                reported.update(range(a, b))
                for batch in settlement.batches:
                    failed = {record.index: record for record in batch.errors}
                    for n, value in enumerate(msgspec.json.decode(batch.values), batch.start):
                        assert n not in outcomes
                        outcomes[n] = failed.pop(n, value)
                    assert not failed, "an error without its item"

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
    assert outcomes == {100 + n: n if n % 3 else error(100 + n) for n in reported}
    assert ledger.failed == sum(n % 3 == 0 for n in reported)


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
    piece = Piece(0, count, arrays.nulls(count, "msgpack"), seconds=0.05)
    flight = ledger.send(piece, "offer", 0.0)
    reports, start = [], 0
    for size, seconds in parts:
        final = Final(count) if start + size == count else None
        values = arrays.nulls(size, "msgpack")
        reports.append(Report("m", 1, 1, start, size, values, [], seconds, final))
        start += size
    order = data.draw(st.permutations(reports + data.draw(st.lists(st.sampled_from(reports)))))

    missing = {report.start for report in reports}
    for report in order:
        settlement = ledger.accept(report)
        missing.discard(report.start)
        assert (flight.number in ledger.flights) == bool(missing), "it ends with its last part"
        if settlement.ended is not None:
            # What the scheduler charges for: the last report, less what is left of the estimate.
            charged = 0.05 + report.seconds - flight.seconds
            assert charged == pytest.approx(sum(seconds for _, seconds in parts))
    assert not ledger.flights and not ledger.has_pieces


@quick
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=15),
    st.sampled_from([3.0, HELD - 1, HELD + 1]),
)
def test_only_agents_that_vanish_are_missed(
    count: int, attempts: int, claims: list[tuple[str, bool]], pause: float
) -> None:
    """However many hold a chunk, and let go of it: it is given up with those that vanish while
    they hold it."""
    ledger, now = Ledger("json", attempts), 0.0
    ledger.send(Piece(0, count, arrays.nulls(count, "json")), "offer", now)
    held: dict[str, float] = {}
    vanished: dict[str, float] = {}
    for agent, vanishes in claims:
        now += pause
        if vanishes:
            vanished[agent] = now
            continue
        held[agent] = now
        vanished.pop(agent, None)  # It was only out of reach.
        gone = sum(vanished[a] - held[a] < HELD for a in held if a in vanished)
        settlement = ledger.claim(1, agent, f"host-{agent}", now, vanished=vanished)
        assert settlement is not None and not settlement.batches
        assert (settlement.ended is not None) == (gone >= VANISHED_LIMIT)
        if settlement.ended is not None:
            assert ledger.claim(1, agent, "", now) is None
            suspects_go_out_one_at_a_time(ledger, count, now)
            return


def suspects_go_out_one_at_a_time(ledger: Ledger, count: int, now: float) -> None:
    for n in range(count):
        piece = ledger.next_piece()
        assert (piece.start, piece.count, piece.suspect) == (n, 1, True)
        flight = ledger.send(piece, "offer", now)
        assert not ledger.has_pieces, "another one is out"
        values = arrays.nulls(1, "json")
        ledger.accept(Report("m", flight.number, 2, n, 1, values, [], 0.0, Final(n + 1)))
    assert not ledger.has_pieces and ledger.done == count


def test_what_could_not_be_heard_was_not_let_go() -> None:
    """The caller is out of reach for longer than that, and the agents vanish just then."""
    ledger = Ledger("json", 2)
    ledger.send(Piece(0, 2, arrays.nulls(2, "json")), "offer", 0.0)
    ledger.claim(1, "a", "h", 1.0)
    ledger.claim(1, "b", "h", 2.0)
    ledger.credit(3 * HELD)
    vanished = {"a": 3 * HELD + 8.0, "b": 3 * HELD + 9.0}
    settlement = ledger.claim(1, "c", "h", 3 * HELD + 9.0, vanished=vanished)
    assert settlement is not None and settlement.ended is not None


def test_a_suspect_that_lives_holds_up_no_other() -> None:
    quarantine = Quarantine()
    ledger = Ledger("json", 2, quarantine=quarantine)
    ledger.send(Piece(0, 2, arrays.nulls(2, "json")), "offer", 0.0)
    ledger.claim(1, "a", "h", 1.0)
    ledger.claim(1, "b", "h", 2.0)
    ledger.claim(1, "c", "h", 3.0, vanished={"a": 1.5, "b": 2.5})
    ledger.send(ledger.next_piece(), "offer", 10.0)
    quarantine.expire(10.0 + SUSPECT_SECONDS - 1)
    assert not ledger.has_pieces
    quarantine.expire(10.0 + SUSPECT_SECONDS + 1)
    assert ledger.has_pieces


def test_what_is_found_in_the_store_is_not_sent_again() -> None:
    ledger = Ledger("json", 2)
    first = ledger.send(Piece(0, 4, arrays.nulls(4, "json")), "offer", 0.0)
    second = ledger.send(Piece(4, 4, arrays.nulls(4, "json")), "offer", 0.0)
    (settlement,) = ledger.mark_seen([(0, 5)])
    assert settlement.ended is first and ledger.repeats
    assert ledger.is_begun(second) and ledger.mark_seen([(0, 5)]) == []
    ledger.withdraw(second)
    piece = ledger.next_piece()
    assert (piece.start, piece.count) == (5, 3) and not ledger.has_pieces


@quick
@given(st.integers(1, 40), st.integers(1, 4), st.data())
def test_an_item_that_kills_its_agent_does_not_tour_the_hosts(
    count: int, attempts: int, data: st.DataObject
) -> None:
    """It kills before the agent could claim it, each time; the others of its chunk are kept."""
    poison = data.draw(st.integers(0, count - 1))
    ledger = Ledger("json", attempts)
    pieces = [Piece(0, count, arrays.nulls(count, "json"))]
    vanished: dict[str, float] = {}
    now, agents, lost = 0.0, 0, []
    while pieces:
        flight = ledger.send(pieces.pop(), "offer", now)
        piece = flight.piece
        deliveries = 0
        while flight.number in ledger.flights:
            deliveries += 1
            agents += 1
            agent = f"agent {agents}"
            # Delivered again, or lost before, it is claimed before it is computed.
            if deliveries > 1 or flight.attempt > 1:
                settlement = ledger.claim(
                    flight.number, agent, "h", now, is_again=True, vanished=vanished
                )
                assert settlement is not None
                lost += [record for batch in settlement.batches for record in batch.errors]
                if settlement.ended is not None:
                    agents -= 1  # Told so in time.
                    break
            if piece.start <= poison < flight.end:
                now += ACK_WAIT
                vanished[agent] = now
                continue
            agents -= 1
            values = arrays.nulls(piece.count, "json")
            final = Final(flight.end)
            ledger.accept(
                Report("m", flight.number, 1, piece.start, piece.count, values, [], 0.0, final)
            )
        while ledger.has_pieces:
            pieces.append(ledger.next_piece())
    assert [record.index for record in lost] == [poison]
    assert ledger.done == count
    assert agents <= max(VANISHED_LIMIT, attempts) + 1


def test_scattered_items_that_come_back_are_cut_as_encoded_ones() -> None:
    values = [b"a" * LEAST, b"b" * LEAST, b"c" * LEAST]
    items = scattered(values)
    assert items is not None
    ledger = Ledger("msgpack", 2)
    flight = ledger.send(Piece(0, 3, items), "offer", 0.0)
    ledger.withdraw(flight)
    pieces = [ledger.next_piece(1), ledger.next_piece(5)]
    assert [msgspec.msgpack.decode(piece.encoded) for piece in pieces] == [values[:1], values[1:]]
