"""Small chunks that travel together."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dispatching import Parts, report_of
from hypotheses import examples
from jetmap.dispatch.sharing import SMALL_SECONDS, Sharing, is_small
from jetmap.wire.messages import BatchTerms, ErrorRecord


@given(
    st.integers(1, 4),
    st.lists(st.sampled_from(["open", "send", "answer", "withdraw", "release"]), max_size=60),
    st.randoms(use_true_random=False),
)
@examples(150)
def test_every_small_map_is_sent_once_and_parcels_are_bounded(
    cores: int, events: list[str], random: Random
) -> None:
    parts = Parts(cores)
    parts.scheduler.cost("f").learn(1000, 1000 * SMALL_SECONDS / 100, 0)
    sharing = parts.scheduler.sharing
    opened, sent = 0, []
    released = False
    for event in [*events, *["send", "answer"] * 200]:
        out = [(run, f) for run in parts.maps for f in run.ledger.flights.values()]
        out = [pair for pair in out if pair[1].parcel is not None]
        if event == "open":
            parts.open(1)
            opened += 1
        elif event == "send":
            for run, flight in parts.send():
                sharing.add(run, flight)
            before = len(sent)
            parcels = sharing.take(cores)
            sent += [run for parcel in parcels for run, _ in parcel]
            assert len(sent) == len(set(sent)) or before == len(sent)
            assert released or len(parcels) <= cores
        elif event == "release":
            sharing.release(sharing.landed)
            released = True
        elif out:
            run, flight = random.choice(out)
            if event == "withdraw":
                parts.maps.end(run, "withdrawn")
            else:
                parts.maps.accept(report_of(run, flight), -1, 0.0)
    assert len(sent) == opened and not len(parts.maps)
    assert sharing.has_idle_core(1) and not sharing.gathered


def test_a_gathered_chunk_that_ends_before_it_is_sent_stays_here() -> None:
    parts = Parts()
    run = parts.open(1)
    sharing = Sharing()
    [(_, flight)] = parts.send()
    sharing.add(run, flight)
    assert len(sharing.gathered) == 1
    run.ledger.fail_all(flight, ErrorRecord(0, "unencodable", "ValueError", "too large"))
    assert sharing.take(1) == [] and not sharing.gathered


def test_waiting_ends_only_if_nothing_has_landed_meanwhile() -> None:
    parts = Parts()
    parts.scheduler.cost("f").learn(1000, 1000 * SMALL_SECONDS / 100, 0)
    sharing = parts.scheduler.sharing
    run = parts.open(1)
    sharing.add(*parts.send()[0])
    [[(_, flight)]] = sharing.take(1)
    assert not sharing.has_idle_core(1)
    landed = sharing.landed
    parts.maps.accept(report_of(run, flight), -1, 0.0)
    assert sharing.landed == landed + 1
    parts.open(1)
    sharing.add(*parts.send()[0])
    sharing.take(1)
    sharing.release(landed)
    assert not sharing.has_idle_core(1)
    sharing.release(sharing.landed)
    assert sharing.has_idle_core(1)


def test_small_maps_of_a_batch_function_share_a_message_before_its_cost_is_known() -> None:
    parts = Parts(1)
    sharing, terms = parts.scheduler.sharing, BatchTerms(8, 0.005)
    for items in (3, 4, 2, 5):
        parts.open(items, batch=terms)
    runs = [run for run, flight in parts.send() if is_small(run, flight.piece)]
    assert len(runs) == 4, "none is out yet"
    for run in runs:
        (flight,) = run.ledger.flights.values()
        sharing.add(run, flight)
    parcels = sharing.take(1)
    assert [[flight.piece.count for _, flight in parcel] for parcel in parcels] == [[3, 4], [2, 5]]
    later = parts.open(1, batch=terms)
    assert parts.send() == [] and parts.scheduler.has_waiting, "each core has a message"
    for run, flight in [*parcels[0], *parcels[1]]:
        parts.maps.accept(report_of(run, flight), -1, 0.0)
    ((run, flight),) = parts.send()
    assert run is later and is_small(run, flight.piece)
    flight.piece.apart = True
    assert not is_small(run, flight.piece), "it has cost a worker"


def test_a_list_of_many_batches_is_cut_into_whole_ones() -> None:
    parts = Parts(2)
    parts.open(20, batch=BatchTerms(8, 0.005), early=True)
    sent = parts.send()
    assert [flight.piece.count for _, flight in sent] == [8, 8]
    assert not any(is_small(run, flight.piece) for run, flight in sent)
