"""Open maps: what reports and claims mean for them, and when they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatching import Parts, report_of
from hypotheses import examples
from jetmap.dispatch.item_feed import ItemFeed
from jetmap.dispatch.maps import CRASH_SECONDS
from jetmap.dispatch.objects import Objects
from jetmap.wire.messages import Claim, ClaimEntry, Crash, ErrorRecord, Final

pytestmark = pytest.mark.anyio


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.lists(st.sampled_from(["deliver", "lose", "double"]), max_size=60),
    st.randoms(use_true_random=False),
)
@examples(100)
def test_maps_end_with_one_outcome_an_item_whatever_happens_to_reports(
    sizes: list[int], fates: list[str], random: Random
) -> None:
    parts = Parts(cores=3)
    runs = [parts.open(size) for size in sizes]
    for run in runs:
        parts.maps.check_end(run)
    now, fates = 0.0, fates[::-1]
    while len(parts.maps):
        now += 1
        parts.send(now)
        out = [(run, f) for run in parts.maps for f in run.ledger.flights.values()]
        for run, flight in random.sample(out, len(out)):
            report = report_of(run, flight)
            fate = fates.pop() if fates else "deliver"
            if fate == "lose":
                parts.maps.take_back(run, flight)
                continue
            for _ in range(2 if fate == "double" else 1):
                parts.maps.accept(report, 0, now)
    assert [run.done for run in runs] == sizes
    assert parts.stats.items_done == sum(sizes)
    assert parts.stats.maps_ended == {"ok": len(sizes)}
    assert parts.stats.maps_open == 0 and not parts.maps.to_withdraw
    assert parts.scheduler.window.in_flight == 0


def test_reports_of_maps_that_ended_change_nothing() -> None:
    parts = Parts()
    run = parts.open(2)
    [(_, flight)] = parts.send()
    report = report_of(run, flight)
    parts.maps.end(run, "withdrawn")
    assert parts.maps.to_withdraw == [run] and run.ended and run not in parts.maps
    parts.maps.accept(report, 0, 1.0)
    parts.maps.end(run, "failed")
    assert parts.stats.items_done == 0
    assert parts.stats.maps_ended == {"withdrawn": 1} and parts.maps.to_withdraw == [run]


def test_a_map_that_ends_early_with_nothing_out_needs_no_withdrawal() -> None:
    parts = Parts()
    parts.maps.end(parts.open(2), "timeout", TimeoutError())
    assert not parts.maps.to_withdraw and parts.stats.maps_ended == {"timeout": 1}


def test_jobs_are_counted_apart() -> None:
    parts = Parts()
    run, job = parts.open(1), parts.open(1, "=j=1")
    assert (len(parts.maps), parts.maps.jobs) == (2, 1)
    parts.maps.end(run, "ok")
    assert (len(parts.maps), parts.maps.jobs) == (1, 1)
    parts.maps.end(job, "ok")
    assert (len(parts.maps), parts.maps.jobs) == (0, 0)


def test_a_claim_names_what_is_no_longer_wanted() -> None:
    parts = Parts(cores=2)
    wanted, ended = parts.open(1), parts.open(1)
    sent = {run: flight for run, flight in parts.send()}
    parts.maps.end(ended, "withdrawn")
    held = [ClaimEntry(run.id, flight.number, 1, None) for run, flight in sent.items()]
    held.append(ClaimEntry("unknown", 1, 1, None))
    unwanted = parts.maps.claim(Claim("a", "host", "inbox", 1, held), 3.0)
    assert unwanted == [(ended.id, sent[ended].number), ("unknown", 1)]
    assert (sent[wanted].heard, sent[wanted].host) == (3.0, "host")


def test_a_report_whose_values_are_lost_counts_only_if_they_are_known() -> None:
    parts = Parts()
    run = parts.open(2)
    [(_, flight)] = parts.send()
    lost = report_of(run, flight)
    assert not parts.maps.on_values_lost(lost)
    assert not run.ledger.flights and run.ledger.has_returned
    assert not parts.maps.on_values_lost(lost), "it is not out, and nothing is known yet"
    for _, again in parts.send():
        parts.maps.accept(report_of(run, again), 0, 1.0)
    assert parts.maps.on_values_lost(lost)


def test_values_are_decoded_in_place_if_they_are_new_and_read_soon() -> None:
    def decode(values: memoryview) -> list[int]:
        return [0]

    parts = Parts(cores=2)
    run, plain = parts.open(1, decode=decode), parts.open(1)
    stream = parts.open(1, decode=decode, early=True)
    reports = {run: report_of(run, flight) for run, flight in parts.send()}
    for report in reports.values():
        report.size = 40_000
    found = [parts.maps.decoder(reports[each]) for each in (run, plain, stream)]
    assert found == [decode, None, decode]
    reports[stream].size = 100
    assert parts.maps.decoder(reports[stream]) is None, "its values take less room encoded"
    failed = msgspec.structs.replace(reports[run], errors=[ErrorRecord(0, "raised", "E", "")])
    assert parts.maps.decoder(failed) is None
    parts.maps.accept(reports[run], 0, 1.0)
    assert parts.maps.decoder(reports[run]) is None, "its map has ended"
    two = parts.open(2, decode=decode)
    [(_, flight)] = parts.send()
    half = msgspec.structs.replace(report_of(two, flight), count=1, values=b"[0]", final=None)
    parts.maps.accept(half, 0, 1.0)
    assert parts.maps.decoder(report_of(two, flight)) is None, "it repeats an outcome"


async def test_a_body_that_fails_ends_its_map_at_once() -> None:
    parts = Parts()
    feed = ItemFeed("json")
    run = parts.open(feed)
    await feed.put([b"1"])
    parts.send()
    feed.fail(ValueError("broken"))
    parts.maps.check_end(run)
    assert run.ended and parts.maps.to_withdraw == [run]
    with pytest.raises(ValueError, match="broken"):
        await anext(run)


async def test_an_iterable_that_fails_ends_its_map_behind_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    parts = Parts()
    run = parts.open(Objects(items(), msgspec.json.encode, keep=False, max_item=100))
    [(_, flight)] = parts.send()
    parts.maps.accept(report_of(run, flight), 0, 1.0)
    assert not run.ended
    assert not parts.send()
    assert run.ended and (await anext(run)).count == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(run)


async def test_chunks_that_fit_into_no_message_fail_item_by_item() -> None:
    parts = Parts()
    parts.scheduler.cost("f").learn(1000, 0.1, 0)
    run = parts.open(40)
    sent = parts.send()
    parts.maps.fail(sent, "too large")
    parts.maps.fail(sent, "too large")
    assert run.ledger.failed == sum(flight.piece.count for _, flight in sent) == run.done
    batch = await anext(run)
    assert (batch.errors[0].kind, batch.errors[0].message) == ("unencodable", "too large")
    assert parts.stats.errors == {"unencodable": run.done}


def test_a_crash_costs_its_map_the_start_of_the_next_worker() -> None:
    parts = Parts()
    run = parts.open(1)
    [(_, flight)] = parts.send()
    charged: list[float] = []
    parts.scheduler.on_landed = (  # type: ignore[method-assign]
        lambda map, flight, seconds: charged.append(seconds)
    )
    crash = Crash(0, "died", "it died", start_seconds=CRASH_SECONDS / 2)
    report = report_of(run, flight, 1.0, final=Final(0, crash))
    parts.maps.accept(msgspec.structs.replace(report, count=0, values=b""), 0, 1.0)
    assert charged == [1.0 + CRASH_SECONDS]
    assert parts.stats.crashes == {("f", "died"): 1}
    assert run.ledger.has_pieces


@pytest.mark.parametrize("is_early", [True, False])
def test_a_map_keeps_its_constants_until_it_ends(is_early: bool) -> None:
    parts, users = Parts(), Counter[str]()
    kept = SimpleNamespace(hold=users.update, release=users.subtract)
    parts.maps.constants = kept  # type: ignore[assignment]
    run = parts.open(1, constants=("d1", "d2"))
    parts.open(1)
    assert users == {"d1": 1, "d2": 1}
    if is_early:
        parts.maps.end(run, "withdrawn")
        parts.maps.end(run, "withdrawn")
    else:
        flight = next(flight for owner, flight in parts.send() if owner is run)
        parts.maps.accept(report_of(run, flight), 0, 1.0)
    assert not +users and run not in parts.maps
