"""Actions of recovery are carried out: chunks go out again, or back to their maps."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import cast

import pytest

from dispatching import Parts, StoredItems, presence
from jetmap.background import Background
from jetmap.dispatch.flight import Flight
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.outbox import Outbox
from jetmap.dispatch.recovery import HOPELESS_SECONDS, TICK, Recovery
from jetmap.dispatch.restoring import Restoring
from jetmap.dispatch.sender import Sender
from jetmap.dispatch.sharing import Sent
from jetmap.errors import BrokerUnreachable, WorkerStartFailed
from virtual_time import run


class World(Parts):
    """Open maps whose lost chunks are restored, and which note what is sent and taken back."""

    def __init__(self) -> None:
        super().__init__(cores=2)
        self.recovery = Recovery(self.roster, time.monotonic())
        self.background = Background("test")
        self.restoring = Restoring(
            self.maps,
            self.recovery,
            cast(Outbox, self),
            cast(Sender, self),
            self.stats,
            self.background,
        )
        self.again: list[Sent] = []
        self.taken: list[Flight] = []
        self.pumps = 0

    async def send_again(self, chunks: list[Sent]) -> None:
        self.again += chunks

    async def take_back(self, flight: Flight) -> None:
        self.taken.append(flight)

    async def pump(self) -> None:
        self.pumps += 1

    def out(self, items: int = 1, id: str = "", seen: StoredItems | None = None) -> OpenMap:
        """Open a map whose chunks have all reached the broker."""
        opened = self.open(items, id)
        opened.ledger.seen = seen
        self.send(time.monotonic())
        for flight in opened.ledger.flights.values():
            flight.confirmed, flight.subject = True, "s"
        return opened

    async def tick(self, *agents: str, connected: bool = True) -> bool:
        """Let a second pass in which these agents announce themselves."""
        await asyncio.sleep(TICK)
        for agent in agents or ("a",):
            offer = "offer" if agent == "a" else "new"
            self.roster.on_presence(presence(agent, offer), time.monotonic())
        checked = await self.restoring.check(connected=connected)
        await self.background.finish()
        return checked


def flights(opened: OpenMap) -> list[Flight]:
    return list(opened.ledger.flights.values())


def test_a_silent_chunk_is_sent_again_and_counts_as_heard() -> None:
    async def test() -> None:
        world = World()
        opened = world.out()
        (flight,) = flights(opened)
        while not world.again:
            await world.tick()
        assert world.again == [(opened, flight)] and flight.heard == time.monotonic()
        assert world.stats.chunks_again["silent"] == 1 and not world.taken

    run(test())


def test_a_vanished_agent_is_reported_and_its_chunks_go_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        world = World()
        opened = world.out()
        (flight,) = flights(opened)
        while not world.taken:
            await world.tick("b")
        assert world.taken == [flight] and not flights(opened)
        assert opened.ledger.returned_items == 1, "for the agent that is there"
        assert world.stats.agents_lost == 1
        assert world.stats.chunks_again["lost"] == 1

    caplog.set_level(logging.WARNING)
    run(test())
    assert "agent a on host host-a, with 2 cores, has gone silent" in caplog.text


def test_nothing_is_lost_while_the_broker_is_away() -> None:
    async def test() -> None:
        world = World()
        world.out()
        for _ in range(30):
            assert not await world.tick(connected=False)
        assert not world.again and not world.taken

    run(test())


def test_a_map_without_hope_ends_with_the_workers_reason() -> None:
    async def test() -> None:
        world = World()
        opened = world.open(1)
        failed = presence(ready=0, failure="SyntaxError: broken")
        for _ in range(int(HOPELESS_SECONDS) + 3):
            await asyncio.sleep(TICK)
            world.roster.on_presence(failed, time.monotonic())
            await world.restoring.check(connected=True)
        assert opened not in world.maps
        with pytest.raises(WorkerStartFailed, match="SyntaxError: broken"):
            await anext(opened)

    run(test())


class SlowStore(StoredItems):
    """Stored outcomes of a job. away: reads that fail."""

    def __init__(self, *ranges: tuple[int, int], away: int) -> None:
        super().__init__(*ranges)
        self.away = away

    async def read(self) -> list[tuple[int, int]]:
        if self.away:
            self.away -= 1
            raise BrokerUnreachable("away")
        return await super().read()


def test_a_job_is_restored_once_it_is_known_what_is_stored() -> None:
    async def test() -> None:
        world = World()
        world.scheduler.cost("f").learn(1000, 0.1, 0)
        opened = world.out(64, "=job=1", SlowStore((0, 1), away=1))
        begun, *untouched = flights(opened)
        assert begun.piece.count > 1
        while opened.ledger.seen.away:  # type: ignore[union-attr]
            await world.tick()
        assert not world.again and not world.taken, "it was not known"
        while not world.taken:
            await world.tick()
        assert world.taken == [begun] and opened.done == 1
        assert world.again == [(opened, flight) for flight in untouched] and world.pumps

    run(test())
