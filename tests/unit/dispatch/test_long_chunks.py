"""Long chunks of a map that has the pool to itself, which end when somebody comes."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatching import Parts, presence, report_of
from hypotheses import examples
from jetmap.dispatch.costs import Cutting
from jetmap.dispatch.flight import Flight
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.roster import Roster
from jetmap.dispatch.rounds import CHUNK_COST
from jetmap.dispatch.scheduler import USUAL_CHUNKS
from jetmap.nats.broker import Message
from jetmap.settings import ChunkSettings
from jetmap.wire import subjects
from jetmap.wire.messages import BatchTerms, Control, Hurry
from jetmap.wire.protocol import HURRY_PROTOCOL
from simulated_pool import SimulatedPool, Work, mapped
from simulation import Simulation
from virtual_time import run as in_virtual_time

EACH = 0.0015
HOP = 0.0005
LONG = Cutting().fitted(2, 0.0, hurries=True)
_control = msgspec.msgpack.Decoder(Control).decode


def pool(cores: int = 2, *, hurries: bool = True, sole: bool = True) -> Simulation:
    """Return a pool that knows what its function costs."""
    simulation = Simulation(cores, hop=HOP, overhead=CHUNK_COST, hurries=hurries)
    simulation.scheduler.is_sole = sole
    for _ in range(2):
        simulation.open([EACH] * 400, whole=True)
        simulation.run()
    return simulation


def taken(costs: list[float], *, whole: bool = True, **more: bool) -> tuple[float, int]:
    """Return the seconds and the chunks of a list."""
    simulation = pool(**more)
    began, before = simulation.now, simulation.chunks
    map = simulation.open(costs, whole=whole)
    simulation.run()
    return simulation.ended[map.id] - began, simulation.chunks - before


def test_a_lone_list_of_steady_items_has_few_chunks() -> None:
    costs = [EACH] * 2000
    seconds, chunks = taken(costs)
    for usual_seconds, usual in (
        taken(costs, hurries=False),  # Agents of an older release.
        taken(costs, sole=False),  # Another dispatcher.
        taken(costs, whole=False),  # A reader that waits for the first results.
    ):
        assert chunks <= usual / 2
        assert seconds <= usual_seconds


@examples(60)
@given(
    st.floats(0.2, 0.8),
    st.integers(1, 40),
    st.floats(-5, -2),
    st.integers(2, 8),
)
def test_a_newcomer_waits_for_one_item_and_each_item_is_computed_once(
    at: float, items: int, power: float, cores: int
) -> None:
    simulation = pool(cores)
    began = simulation.now
    steady = [EACH] * (1000 * cores)
    first = simulation.open(steady, whole=True)
    came: list[OpenMap] = []
    newcomer = [10**power] * items

    def come() -> None:
        assert is_any_long(first)
        came.append(simulation.open(newcomer, function="g"))

    simulation.at(began + at, come)
    simulation.run()
    (second,) = came
    assert first.is_complete and second.is_complete
    assert sorted(simulation.computed[first.id]) == list(range(len(steady)))
    assert sorted(simulation.computed[second.id]) == list(range(items))
    waited = simulation.first[second.id] - (began + at)
    assert waited <= newcomer[0] + EACH + CHUNK_COST + 5 * HOP


@examples(40)
@given(
    st.integers(100, 3000),
    st.floats(-5, -2),
    st.sampled_from([2, 4, 16]),
    st.sampled_from([2.0, 5.0, 50.0]),
    st.floats(0, 1.0),
)
def test_a_core_that_becomes_slow_costs_little_more_than_with_usual_chunks(
    items: int, power: float, cores: int, slower: float, at: float
) -> None:
    usual, long = (
        slowed([10**power] * items, cores, slower, at, hurries=hurries) for hurries in (False, True)
    )
    assert long <= 1.1 * usual + LONG.sole


def slowed(costs: list[float], cores: int, slower: float, at: float, *, hurries: bool) -> float:
    """Return the seconds of a list in which a core becomes slow ``at`` seconds after its begin."""
    slow_from = float("inf")
    simulation = Simulation(
        cores,
        hop=HOP,
        overhead=CHUNK_COST,
        speed=lambda core, now: slower if core == 0 and now >= slow_from else 1.0,
        hurries=hurries,
    )
    for _ in range(2):
        simulation.open(costs, whole=True)
        simulation.run()
    began = simulation.now
    slow_from = began + at
    map = simulation.open(costs, whole=True)
    simulation.run()
    assert map.is_complete
    assert sorted(simulation.computed[map.id]) == list(range(len(costs)))
    return simulation.ended[map.id] - began


def test_who_came_may_come_again() -> None:
    parts = Parts(cores=2)
    parts.scheduler.cutting = LONG
    cost = parts.scheduler.cost("double")
    for _ in range(8):
        cost.learn(30, 30 * EACH, 0)
    run = parts.open(100_000, whole=True)
    sent = settled(parts, run, 8)
    assert max(flight.seconds for flight in sent[4:]) > 3 * LONG.seconds
    newcomer = parts.open(1)
    assert hurried(parts) == [run]
    assert all(flight.is_hurried for flight in run.ledger.flights.values())
    parts.scheduler.hurried.clear()
    parts.send()
    settled(parts, newcomer, 1)
    later = settled(parts, run, USUAL_CHUNKS)
    assert max(flight.seconds for flight in later[4:]) < 1.5 * LONG.seconds
    assert max(flight.seconds for flight in settled(parts, run, 8)) > 3 * LONG.seconds
    parts.open(1)
    assert hurried(parts) == [run]


def settled(parts: Parts, run: OpenMap, chunks: int) -> list[Flight]:
    """End this many chunks of a map, each as it was predicted; return them in order."""
    ended: list[Flight] = []
    while len(ended) < chunks:
        parts.send()
        flight = next(iter(run.ledger.flights.values()))
        report = report_of(run, flight, flight.piece.count * EACH)
        run.learn(report, flight)
        parts.maps.accept(report, -1, 0.0)
        ended.append(flight)
    return ended


def test_an_old_map_that_has_items_again_is_somebody_too() -> None:
    parts = Parts(cores=2)
    parts.scheduler.cutting = LONG
    old = parts.open(1)
    old.pause()
    run = parts.open(100_000, whole=True)
    settled(parts, run, 8)
    parts.send()
    assert not parts.scheduler.hurried and is_any_long(run)
    old.resume()
    sent = parts.send()
    assert [map for map, _ in sent] == [old] and hurried(parts) == [run]
    parts.scheduler.hurried.clear()
    parts.open(1)
    assert not parts.scheduler.hurried, "the agents know of all that is out"


def test_an_old_map_that_waits_for_room_is_somebody_too() -> None:
    """Long chunks take all the room that there is at the broker."""
    parts = Parts(cores=2)
    parts.scheduler.cutting = LONG
    old = parts.open(1000)
    settled(parts, old, 20)
    old.pause()
    while old.ledger.flights:
        settled(parts, old, 1)
    run = parts.open(100_000, whole=True)
    settled(parts, run, 40)
    parts.scheduler.hurried.clear()
    parts.send()
    assert is_any_long(run) and not parts.scheduler.window.has_room
    assert not parts.scheduler.hurried
    old.resume()
    assert parts.send() == [] and hurried(parts) == [run]


@pytest.mark.parametrize("hurries", [False, True])
@pytest.mark.parametrize("each", [0.0014, 0.017, 0.03])
def test_maps_side_by_side_hurry_each_other_once(each: float, hurries: bool) -> None:
    """Usual chunks may be a little longer than the longest should be; nobody asks to end those.

    Agents of older releases do not know the request.
    """
    simulation = pool(hurries=hurries)
    for function in "gh":
        simulation.open([each] * 400, function=function, whole=True)
        simulation.run()
    before, asked = simulation.chunks, simulation.hurries
    for function in "gh":
        simulation.open([each] * int(4 / each), function=function, whole=True)
    simulation.run()
    assert simulation.chunks - before > 100
    assert simulation.hurries - asked <= hurries


def test_no_batch_is_asked_to_end_early() -> None:
    parts = Parts(cores=2)
    parts.scheduler.cutting = LONG
    run = parts.open(10_000, whole=True, batch=BatchTerms(64, 0.0))
    settled(parts, run, 20)
    parts.send()
    assert max(flight.seconds for flight in run.ledger.flights.values()) > LONG.longest
    assert not is_any_long(run)


def test_only_what_was_sent_before_is_asked_to_end_early() -> None:
    parts = Parts(cores=2)
    parts.scheduler.cutting = LONG
    run = parts.open(100_000, whole=True)
    settled(parts, run, 8)
    parts.send()
    last = max(run.ledger.flights)
    parts.open(1)
    settled(parts, run, 2)
    assert parts.scheduler.hurried == [(run, last)]
    assert not run.ledger.flights[max(run.ledger.flights)].is_hurried


def test_a_map_that_is_idle_keeps_no_other_from_long_chunks() -> None:
    parts = Parts(cores=2)
    parts.scheduler.cutting = LONG
    idle = parts.open(100_000, whole=True)
    settled(parts, idle, 8)
    parts.send()
    assert is_any_long(idle)
    run = parts.open(100_000, whole=True)
    idle.pause()
    while idle.ledger.flights:
        settled(parts, idle, 1)
    settled(parts, run, 2 * USUAL_CHUNKS)
    parts.send()
    assert is_any_long(run)


def test_a_map_is_not_alone_while_another_one_has_a_chunk_out() -> None:
    parts = Parts(cores=2)
    parts.scheduler.cutting = LONG
    parts.open(10_000, max_parallel=1)
    run = parts.open(100_000, whole=True, max_parallel=1)
    for _ in range(20):
        settled(parts, run, 1)
        assert not run.ledger.flights
        parts.send()
        assert not is_any_long(run)


def test_a_chunk_that_ended_early_on_request_was_predicted_well() -> None:
    for asked in (True, False):
        parts = Parts()
        run = parts.open(1000, whole=True)
        run.pace.learn(10, 0.01)
        run.pace.is_sure = True
        ((_, flight),) = parts.send()[:1]
        flight.piece.count = 10
        flight.is_hurried = asked
        report = report_of(run, flight, 0.005)
        assert report.final is not None
        report.count, report.final.end = 5, 5
        run.learn(report, flight)
        assert run.pace.is_sure == asked


def test_all_agents_must_know_the_request() -> None:
    roster = Roster()
    roster.on_presence(presence("a"), 0.0)
    assert roster.all_speak(HURRY_PROTOCOL)
    roster.on_presence(presence("b", protocol=HURRY_PROTOCOL - 1), 0.0)
    assert not roster.all_speak(HURRY_PROTOCOL)
    roster.on_presence(presence("b", protocol=HURRY_PROTOCOL - 1, gone=True), 0.0)
    assert roster.all_speak(HURRY_PROTOCOL)


@pytest.mark.parametrize("at", [0.45, 0.55, 0.65, 0.85])
def test_a_list_beside_hurried_chunks_has_its_share_at_once(at: float) -> None:
    """Their map is not owed what they did not take: nobody waited for it."""
    taken: list[float] = []
    for hurries in (False, True):
        simulation = pool(hurries=hurries)
        for _ in range(2):
            simulation.open([0.01] * 100, function="g", whole=True)
            simulation.run()
        began = simulation.now
        simulation.open([EACH] * 4000, whole=True)
        simulation.at(began + at, partial(simulation.open, [0.01] * 100, function="g", whole=True))
        simulation.run()
        taken.append(simulation.ended[list(simulation.first)[-1]] - (began + at))
    usual, long = taken
    assert long < 1.03 * usual


@pytest.mark.parametrize("elsewhere", [False, True])
@examples(20)
@given(st.floats(0.3, 2.5))
def test_a_newcomer_of_any_dispatcher_waits_for_one_item(elsewhere: bool, at: float) -> None:
    """A whole pool in virtual time: a long list, and small ones that come while it runs."""
    work = Work(seconds=lambda item: 0.01 if item < 100_000 else 0.001)

    async def scenario() -> None:
        async with SimulatedPool(work=work) as pool:
            await pool.agent(2)
            dispatchers = [await pool.dispatcher() for _ in range(2)]
            hurried: list[str] = []
            listener = pool.broker.connect("listener")

            async def on_control(message: Message) -> None:
                control = _control(message.data)
                if isinstance(control, Hurry):
                    hurried.append(control.map)

            await listener.subscribe(subjects.control("default"), on_control)
            for _ in range(3):
                await mapped(dispatchers[0], list(range(100)), whole=True)
            await asyncio.sleep(60.0)
            work.runs.clear()
            running = asyncio.ensure_future(mapped(dispatchers[0], list(range(1000)), whole=True))
            await asyncio.sleep(at)
            assert is_any_long(*dispatchers[0].maps)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await mapped(dispatchers[elsewhere], [100_000]) == [200_000]
            assert loop.time() - began < 0.02
            assert hurried
            if elsewhere:
                # From now on it is known that there is another dispatcher.
                await asyncio.sleep(1.0)
                assert not is_any_long(*dispatchers[0].maps)
            assert await running == [2 * item for item in range(1000)]
            assert set(work.runs.values()) == {1}
            await listener.close()

    in_virtual_time(scenario())


def hurried(parts: Parts) -> list[OpenMap]:
    """Return the maps whose long chunks are to end early."""
    return [run for run, _ in parts.scheduler.hurried]


def is_any_long(*runs: OpenMap) -> bool:
    """Return whether one of the chunks that are out is a long one."""
    return any(flight.piece.is_long for run in runs for flight in run.ledger.flights.values())


def test_a_shorter_setting_has_shorter_chunks() -> None:
    assert LONG.sole == 4 * LONG.seconds
    settings = ChunkSettings(chunk_seconds=0.01)
    assert Cutting.of(settings).fitted(2, 0.0, hurries=True).sole == pytest.approx(0.04)
    assert LONG.fitted(2, 0.0).sole == LONG.longest, "older agents"
