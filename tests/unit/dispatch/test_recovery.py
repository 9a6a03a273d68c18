"""Lost chunks, and the actions that follow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatching import Parts, StoredItems, presence
from hypotheses import examples
from jetmap.dispatch import recovery
from jetmap.dispatch.flight import Flight
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.probes import PROBES
from jetmap.dispatch.recovery import HOPELESS_SECONDS, TICK, Actions, Recovery
from jetmap.wire.timing import GONE_AFTER, PATIENCE, RECLAIM, UNCONFIRMED_SECONDS


class World(Parts):
    """Open maps that are checked once a second, in time that the test passes."""

    def __init__(self) -> None:
        super().__init__(cores=2)
        self.now = 0.0
        self.recovery = Recovery(self.roster, self.now)

    def out(self, items: int = 1, id: str = "", seen: StoredItems | None = None) -> OpenMap:
        """Open a map and send its first chunk."""
        run = self.open(items, id)
        run.ledger.seen = seen
        assert self.send(self.now)
        return run

    def queue(self, count: int, offer: str) -> None:
        """Open maps of one item each, whose chunks wait at the broker for an offer."""
        for _ in range(count):
            run = self.open(1)
            piece = run.source.take(1, 1000)
            assert piece is not None
            run.ledger.send(piece, offer, self.now).confirmed = True

    def tick(self, seconds: float = TICK, *, connected: bool = True) -> Actions | None:
        self.now += seconds
        return self.recovery.check(self.maps, self.now, connected=connected)

    def check(self) -> Actions:
        """Let a second pass in which the agents announce themselves."""
        for agent in self.roster.agents:
            self.roster.on_presence(agent, self.now)
        actions = self.tick()
        assert actions is not None
        return actions

    def act(self, actions: Actions) -> None:
        """Publish again as the dispatcher does."""
        for _, flight in actions.unconfirmed + actions.silent:
            flight.attempt += 1
            flight.published = self.now
        for _, flight in actions.silent:
            flight.heard = self.now


def flight_of(run: OpenMap) -> Flight:
    return next(iter(run.ledger.flights.values()))


def test_an_unconfirmed_chunk_is_published_again_with_an_ack_once_a_second() -> None:
    world = World()
    flight = flight_of(world.out())
    assert UNCONFIRMED_SECONDS <= TICK
    for attempt in (2, 3):
        actions = world.check()
        assert [f for _, f in actions.unconfirmed] == [flight]
        world.act(actions)
        assert flight.attempt == attempt
    flight.confirmed = True
    assert world.check() == Actions()


def test_a_silent_chunk_is_published_again_where_its_offer_is_served() -> None:
    world = World()
    run = world.out()
    flight = flight_of(run)
    flight.confirmed = True
    checks = 0
    while not (actions := world.check()).silent:
        checks += 1
    assert world.now - 0.0 >= PATIENCE and checks == int(PATIENCE)
    assert actions == Actions(silent=[(run, flight)])


@given(st.lists(st.sampled_from(["claim", "freeze", "cut", "tick"]), max_size=40))
@examples(200)
def test_a_chunk_is_lost_only_after_it_could_be_heard_and_was_not(events: list[str]) -> None:
    world = World()
    run = world.out()
    flight = flight_of(run)
    flight.confirmed = True
    listened = 0.0  # Seconds in which a claim could have come, since the last one.
    for event in events:
        if event == "freeze":
            assert world.tick(TICK * 30) is None
            listened += TICK  # It may have frozen at the end of one.
        elif event == "cut":
            assert world.tick(connected=False) is None
        else:
            if event == "claim":
                assert run.ledger.claim(flight.number, "a", "host", world.now) is not None
                listened = 0.0
            actions = world.check()
            listened += TICK
            assert bool(actions.silent) == (listened >= PATIENCE)
            world.act(actions)
            listened = 0.0 if actions.silent else listened


def test_an_agent_that_is_silent_is_gone_once_and_its_chunk_waits_for_another() -> None:
    world = World()
    run = world.out()
    flight_of(run).confirmed = True
    gone = []
    while not gone:
        actions = world.tick()
        assert actions is not None and not actions.take_back
        world.act(actions)
        gone += actions.gone
    assert [agent.agent for agent in gone] == ["a"] and world.now > GONE_AFTER
    for _ in range(20):
        assert world.tick() == Actions()  # No agent could take it.
    world.roster.on_presence(presence("b", offer="new"), world.now)
    while not (actions := world.check()).take_back:
        assert not actions.silent
    assert actions.take_back == [(run, flight_of(run))]


def test_a_jobs_silent_chunks_wait_until_its_stored_outcomes_are_read() -> None:
    world = World()
    world.scheduler.cost("f").learn(1000, 0.1, 0)
    run = world.out(64, id="=job=1", seen=StoredItems())
    world.send()
    flights = list(run.ledger.flights.values())
    assert len(flights) > 1 and flights[0].piece.count > 1
    for flight in flights:
        flight.confirmed = True
    while not (actions := world.check()).read_store:
        pass
    assert actions == Actions(read_store=[run])
    assert world.check() == Actions()  # It is being read.
    run.ledger.mark_seen([(flights[0].piece.start, flights[0].piece.start + 1)])
    world.recovery.on_store_read(run)
    resumed = world.recovery.resume(run, world.now)
    assert resumed.take_back == [(run, flights[0])]
    assert resumed.silent == [(run, flight) for flight in flights[1:]]
    assert world.check().read_store == [run]  # From the start, unless there is news of its chunks.


def test_a_map_that_ends_while_its_store_is_read_is_forgotten() -> None:
    world = World()
    run = world.out(id="=job=1", seen=StoredItems())
    while not world.check().read_store:
        pass
    world.maps.end(run, "withdrawn")
    world.check()
    assert not world.recovery._reading


def test_after_a_reconnection_chunks_are_soon_lost_unless_claimed() -> None:
    world = World()
    claimed, lost = world.out(), world.out()
    for run in (claimed, lost):
        flight_of(run).confirmed = True
    world.recovery.on_reconnect(world.maps, world.now)
    claimed.ledger.claim(flight_of(claimed).number, "a", "host", world.now)
    assert RECLAIM <= TICK
    assert [run for run, _ in world.check().silent] == [lost]


@pytest.mark.parametrize("id", ["", "=job=1"])
def test_a_map_without_hope_is_given_up_but_a_job_waits(id: str) -> None:
    world = World()
    run = world.open(1, id)
    failed = presence(ready=0, failure="SyntaxError: broken")
    world.roster.on_presence(failed, world.now)
    given_up: list[tuple[OpenMap, str]] = []
    while world.now < 2 * HOPELESS_SECONDS and not given_up:
        given_up = world.check().give_up
    if id:
        assert not given_up
    else:
        assert given_up == [(run, "SyntaxError: broken")]
        assert world.now > HOPELESS_SECONDS


def test_hope_that_comes_back_starts_the_wait_anew() -> None:
    world = World()
    world.open(1)
    failed = presence(ready=0, failure="SyntaxError: broken")
    for _ in range(3):
        world.roster.on_presence(failed, world.now)
        for _ in range(int(HOPELESS_SECONDS)):
            assert not world.check().give_up
        world.roster.on_presence(presence(), world.now)
        assert not world.check().give_up


def test_a_suspect_that_lives_long_leaves_the_quarantine() -> None:
    world = World()
    run = world.out()
    world.recovery.quarantine.enter(flight_of(run))
    while not world.recovery.quarantine.is_free:
        world.act(world.check())
    assert world.now > recovery.PATIENCE


def test_of_a_long_queue_some_chunks_are_published_again_and_all_once_one_is_lost() -> None:
    world = World()
    world.queue(200, "offer")
    while not (actions := world.check()).silent:
        pass
    world.act(actions)
    assert len(actions.silent) == PROBES
    world.recovery.on_lost([flight for _, flight in actions.silent[:1]], world.now)
    actions = world.check()
    assert len(actions.silent) == 200 - PROBES


def test_after_a_reconnection_a_long_queue_is_published_again_whole() -> None:
    world = World()
    world.queue(100, "offer")
    world.recovery.on_reconnect(world.maps, world.now)
    assert len(world.check().silent) == 100


def test_a_long_queue_that_nobody_serves_is_taken_back_whole() -> None:
    world = World()
    world.queue(100, "gone")
    while not (actions := world.check()).take_back:
        assert not actions.silent
    assert len(actions.take_back) == 100
