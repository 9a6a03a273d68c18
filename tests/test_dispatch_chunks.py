"""What becomes of one chunk: parts in any order, claims, losses."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetmap import arrays
from jetmap.dispatch.ledger import LEASE, TRIM_AFTER, VANISHED_LIMIT, Ledger, Piece
from jetmap.messages import Crash, ErrorRecord, Final, Report

quick = settings(max_examples=100, deadline=None)


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
    flight = ledger.send(piece, "main", "offer", 1.0, 0.0)
    reported = set[int]()
    outcomes: dict[int, object] = {}

    def report(parts: list[list[int]]) -> None:
        for a, b in parts:
            b = min(b, count)
            if a < b:
                values = msgspec.json.encode([n if n % 3 else None for n in range(a, b)])
                errors = [error(100 + n) for n in range(a, b) if n % 3 == 0]
                settlement = ledger.take(Report("m", 1, 1, 100 + a, b - a, values, errors, 0.1))
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
    piece = Piece(0, count, arrays.nulls(count, "msgpack"))
    flight = ledger.send(piece, "main", "offer", 0.05, 0.0)
    reports, start = [], 0
    for size, seconds in parts:
        final = Final(count) if start + size == count else None
        values = arrays.nulls(size, "msgpack")
        reports.append(Report("m", 1, 1, start, size, values, [], seconds, final))
        start += size
    order = data.draw(st.permutations(reports + data.draw(st.lists(st.sampled_from(reports)))))

    missing = {report.start for report in reports}
    for report in order:
        settlement = ledger.take(report)
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
)
def test_only_agents_that_vanish_are_missed(
    count: int, attempts: int, claims: list[tuple[str, bool]]
) -> None:
    """However many hold a chunk, and let go of it: it is given up with those that are gone."""
    ledger, now = Ledger("json", attempts), 0.0
    ledger.send(Piece(0, count, arrays.nulls(count, "json")), "main", "offer", 0.05, now)
    held: set[str] = set()
    vanished: dict[str, float] = {}
    for agent, vanishes in claims:
        now += 3
        if vanishes:
            vanished[agent] = now
            continue
        held.add(agent)
        vanished.pop(agent, None)  # It was only out of reach.
        gone = len(held & set(vanished))
        limit = VANISHED_LIMIT if count > 1 else max(VANISHED_LIMIT, attempts)
        settlement = ledger.claimed(1, agent, f"host-{agent}", now, vanished=vanished)
        assert settlement is not None
        assert (settlement.ended is not None) == (gone >= limit)
        if settlement.ended is None:
            assert not settlement.batches
            continue
        assert ledger.claimed(1, agent, "", now) is None
        if count > 1:
            pieces = [ledger.next_piece() for _ in range(count)]
            assert [(p.start, p.count) for p in pieces] == [(n, 1) for n in range(count)]
            assert not settlement.batches
        else:
            (record,) = settlement.batches[0].errors
            assert record.kind == "lost" and record.detail is not None
            assert record.detail["attempts"] == gone
        assert not ledger.has_pieces
        return


@quick
@given(
    st.integers(1, 10),
    st.integers(0, 9),
    st.integers(1, 4),
    st.sampled_from(["died", "timeout", "stopped"]),
)
def test_an_item_that_kills_workers_is_soon_alone_and_then_given_up(
    count: int, guilty: int, attempts: int, reason: str
) -> None:
    guilty = min(guilty, count - 1)
    ledger = Ledger("json", attempts)
    pieces = [Piece(0, count, msgspec.json.encode(list(range(count))))]
    errors: list[ErrorRecord] = []
    crashes = 0
    while pieces:
        piece = pieces.pop(0)
        flight = ledger.send(piece, "main", "offer", 0.05, 0.0)
        crash = None
        if piece.start <= guilty < flight.end and (reason != "stopped" or crashes < 5):
            crashes += 1
            assert crashes == 1 or reason == "stopped" or piece.count == 1
            crash = Crash(guilty, reason, "it died", 9, host="h")  # type: ignore[arg-type]
        end = guilty if crash else flight.end
        done = end - piece.start
        values = arrays.nulls(done, "json")
        settlement = ledger.take(
            Report("m", flight.number, 1, piece.start, done, values, [], 0.1, Final(end, crash))
        )
        assert settlement.ended is flight
        errors += [record for batch in settlement.batches for record in batch.errors]
        while ledger.has_pieces:
            pieces.append(ledger.next_piece())

    assert ledger.done == count
    kinds = {"died": ["lost"], "timeout": ["timeout"], "stopped": []}
    assert [record.kind for record in errors] == kinds[reason]
    assert all(record.index == guilty for record in errors)
    assert crashes == {"died": attempts, "timeout": 1, "stopped": 5}[reason]


def test_what_a_crash_says_stays_with_its_item() -> None:
    ledger = Ledger("json", 1)
    ledger.send(Piece(5, 1, b"[0]"), "main", "offer", 0.05, 0.0)
    crash = Crash(5, "died", "killed by signal 9", 9, None, 1 << 30, "host")
    settlement = ledger.take(Report("m", 1, 1, 5, 0, b"[]", [], 0.0, Final(5, crash)))
    (record,) = settlement.batches[0].errors
    assert record.message == "killed by signal 9 (1 attempt)"
    assert record.detail == {
        "signal": 9,
        "exit_code": None,
        "peak_memory": 1 << 30,
        "attempts": 1,
        "host": "host",
    }


@quick
@given(st.integers(2, 20), st.data())
def test_what_is_behind_a_stuck_item_goes_elsewhere_once(count: int, data: st.DataObject) -> None:
    """The chunk may still go further than that before it hears of it, or crash there."""
    ledger = Ledger("json", 2)
    piece = Piece(100, count, msgspec.json.encode(list(range(count))))
    flight = ledger.send(piece, "main", "offer", 1.0, 0.0)
    stuck = data.draw(st.integers(0, count - 1))
    went_on = data.draw(st.integers(0, count - 1 - stuck))
    crashes = data.draw(st.booleans())

    assert not ledger.trim(1, 100 + stuck, TRIM_AFTER / 2), "it may yet be quick"
    assert not ledger.trim(1, None, TRIM_AFTER)
    assert ledger.trim(1, 100 + stuck, TRIM_AFTER) == (stuck < count - 1)
    assert not ledger.trim(1, 100 + stuck, TRIM_AFTER)
    again = ledger.next_piece() if ledger.has_pieces else None
    if again is not None:
        assert msgspec.json.decode(again.items) == list(range(stuck + 1, count))
        ledger.send(again, "main", "offer", 1.0, TRIM_AFTER)

    end = stuck + 1 + went_on
    crash = Crash(100 + end - 1, "died", "gone", signal=9) if crashes else None
    done = end - 1 if crashes else end
    values = msgspec.json.encode(list(range(done)))
    first = Report("m", 1, 1, 100, done, values, [], 0.1, Final(100 + done, crash))
    settlement = ledger.take(first)
    assert settlement.ended is flight
    outcomes = [n for b in settlement.batches for n in msgspec.json.decode(b.values)]
    if again is not None:
        values = msgspec.json.encode(list(range(stuck + 1, count)))
        final = Final(100 + count)
        last = Report("m", 2, 1, again.start, again.count, values, [], 0.1, final)
        outcomes += [n for b in ledger.take(last).batches for n in msgspec.json.decode(b.values)]
    rest = ledger.next_piece() if ledger.has_pieces else None
    if rest is not None:
        assert crashes and (rest.start, rest.count) == (100 + end - 1, 1)
        outcomes += msgspec.json.decode(rest.items)
    assert sorted(outcomes) == list(range(count)), "each item once"


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
        flight = ledger.send(pieces.pop(), "main", "offer", 0.05, now)
        piece = flight.piece
        deliveries = 0
        while flight.number in ledger.flights:
            deliveries += 1
            agents += 1
            agent = f"agent {agents}"
            # Delivered again, or lost before, it is claimed before it is computed.
            if deliveries > 1 or flight.attempt > 1:
                settlement = ledger.claimed(
                    flight.number, agent, "h", now, deliveries=deliveries, vanished=vanished
                )
                assert settlement is not None
                lost += [record for batch in settlement.batches for record in batch.errors]
                if settlement.ended is not None:
                    agents -= 1  # Told so in time.
                    break
            if piece.start <= poison < flight.end:
                now += LEASE
                vanished[agent] = now
                continue
            agents -= 1
            values = arrays.nulls(piece.count, "json")
            final = Final(flight.end)
            ledger.take(
                Report("m", flight.number, 1, piece.start, piece.count, values, [], 0.0, final)
            )
        while ledger.has_pieces:
            pieces.append(ledger.next_piece())
    assert [record.index for record in lost] == [poison]
    assert ledger.done == count
    assert agents <= max(VANISHED_LIMIT, attempts) + (count > 1)
