"""The profile of a map: where its time goes, its slowest items, the cores that worked for it."""

from __future__ import annotations

import pytest

from dispatching import Parts, report_of
from jetmap.dispatch.profile import MOST_SLOW, MOST_STEPS, Profile
from jetmap.wire.messages import Crash, Final, Report


def report(start: int, count: int, seconds: float, *, crash: bool = False) -> Report:
    end = Crash(start + count, "died", "it died") if crash else None
    final = Final(start + count, end)
    return Report("m", 2, 1, start, count, b"[]", [], seconds, final)


def test_waiting_computing_and_lost_work_are_told_apart() -> None:
    parts = Parts()
    run = parts.open(3)
    [(_, flight)] = parts.send(now=10.0)
    profile = Profile()
    profile.on_report(report(0, 1, 2.0), flight, 15.0, "h")
    profile.on_report(report(1, 0, 4.0, crash=True), flight, 20.0, "h")
    profile.on_report(report(0, 1, 1.0), None, 21.0, "h")
    details = profile.details(run.id, 30.0)
    assert (details.compute, details.wait, details.again) == (2.0, 3.0 + 6.0, 5.0)
    assert details.tail == 0.0


def test_a_chunk_that_reports_in_parts_waits_for_what_it_does_not_compute() -> None:
    parts = Parts()
    run = parts.open(3)
    [(_, flight)] = parts.send(now=10.0)
    profile = Profile()
    for index in range(3):
        part = report(index, 1, 5.0)
        part.final = part.final if index == 2 else None
        profile.on_report(part, flight, 15.5 + 5 * index, "h")
    details = profile.details(run.id, 30.0)
    assert (details.compute, details.wait, details.way) == (15.0, 0.5, 0.0)


def test_the_fastest_chunk_says_how_much_of_the_waiting_is_the_way() -> None:
    parts = Parts()
    run = parts.open(3)
    [(_, flight)] = parts.send(now=10.0)
    profile = Profile()
    for seconds in (1.0, 0.25, 3.0):
        profile.on_report(report(0, 3, 2.0), flight, 12.0 + seconds, "h")
    details = profile.details(run.id, 30.0)
    assert (details.wait, details.way) == (4.25, 0.75)


def test_the_slowest_items_are_kept_with_their_hosts() -> None:
    profile = Profile()
    for index in range(100):
        profile.on_report(
            report(index, 1, 0.001 * ((index * 37) % 100 + 1)), None, 1.0, f"h{index}"
        )
    slow = profile.details("m", 2.0).slow
    assert [round(item.seconds * 1000) for item in slow] == [100, 99, 98, 97, 96, 95]
    assert len(slow) == MOST_SLOW and slow[0].host == f"h{slow[0].index}"
    assert sum(profile.bins.counts.values()) == 100


def test_the_curve_of_cores_keeps_a_bounded_number_of_points() -> None:
    profile, now = Profile(), 0.0
    for _ in range(500):
        profile.sample(now, is_sent=False)
        now += 2.0
        profile.compute += 6.0
    details = profile.details("m", now)
    assert MOST_STEPS / 2 <= len(details.parallel) <= MOST_STEPS
    assert details.parallel == [pytest.approx(3.0)] * len(details.parallel)
    assert details.step * len(details.parallel) == pytest.approx(1_000, rel=0.05)


def test_the_tail_begins_when_nothing_is_left_to_send() -> None:
    profile = Profile()
    profile.sample(1.0, is_sent=False)
    profile.sample(3.0, is_sent=True)
    profile.sample(5.0, is_sent=True)
    assert profile.details("m", 9.0).tail == 6.0
    profile.sample(11.0, is_sent=False)
    assert profile.details("m", 12.0).tail == 0.0, "items came back"


def test_only_a_map_of_several_chunks_has_a_profile() -> None:
    parts = Parts()
    small, large = parts.open(1), parts.open(40)
    while len(parts.maps):
        for run, flight in parts.send(1.0):
            parts.maps.accept(report_of(run, flight), 0, 2.0, "a")
    assert small.profile is None
    assert large.profile is not None and large.profile.compute > 0
    assert {item.host for item in large.profile.details("m", 3.0).slow} == {"host-a"}


def test_a_paused_or_restricted_map_sends_no_more_than_it_may() -> None:
    parts = Parts(cores=8)
    run = parts.open(100)
    run.restrict(2)
    assert len(parts.send()) == 2
    run.pause()
    for flight in list(run.ledger.flights.values()):
        parts.maps.accept(report_of(run, flight), 0, 1.0)
    assert parts.send() == [] and run.is_paused
    run.restrict(3)
    assert run.is_paused and parts.send() == []
    run.resume()
    assert len(parts.send()) == 3 and not run.is_paused
    run.restrict(None)
    assert len(parts.send()) > 0


def test_a_report_that_arrives_twice_is_no_error() -> None:
    profile = Profile()
    for _ in range(2 * MOST_SLOW):
        profile.on_report(report(3, 1, 0.5), None, 1.0, "h")
    assert [item.index for item in profile.details("m", 2.0).slow] == [3] * MOST_SLOW
