"""A dispatcher announces itself and answers, in a whole pool in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.sources import RawItems
from jetmap.errors import MapCancelled
from jetmap.monitoring.announcer import Announcer, program
from jetmap.wire import subjects
from jetmap.wire.activity import Activity, ActivityAnswer, Ask, read_activity, read_answer
from jetmap.wire.messages import encode
from simulated_pool import FUNCTION, SimulatedPool, Work
from virtual_time import run

JOBS: Any = SimpleNamespace(waiting=list)
Step = Callable[["Place"], Awaitable[None]]


class Place:
    """A dispatcher with an announcer, and somebody who hears it."""

    def __init__(self, pool: SimulatedPool, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.heard: list[Activity] = []
        self.connection = pool._connect("watcher")
        self.announcer = Announcer(pool._connect("announcer"), dispatcher, JOBS, "default")

    async def start(self) -> None:
        async def on_activity(message: Any) -> None:
            self.heard.append(read_activity(message.data))

        await self.connection.subscribe(subjects.all_activity("default"), on_activity)
        await self.announcer.start()

    async def open(self, items: int) -> OpenMap:
        elements = [encode(item) for item in range(items)]
        spec = MapSpec(function=FUNCTION, format="msgpack")
        return await self.dispatcher.open(spec, RawItems(elements, "msgpack"))

    async def ask(self, what: str, id: str = "", value: int = 0) -> ActivityAnswer:
        inbox = self.heard[-1].inbox
        data = await self.connection.request(f"{inbox}.ask", encode(Ask(what, id, value)))
        return read_answer(data)


def in_a_pool(step: Step, *, seconds: float = 0.1, cores: int = 2) -> None:
    async def scenario() -> None:
        async with SimulatedPool(work=Work(seconds=lambda item: seconds)) as pool:
            await pool.agent(cores)
            place = Place(pool, await pool.dispatcher())
            await place.start()
            try:
                await step(place)
            finally:
                await place.announcer.close()

    run(scenario())


def test_it_announces_every_two_seconds_and_says_goodbye() -> None:
    async def step(place: Place) -> None:
        await asyncio.sleep(9)
        assert [a.sequence for a in place.heard] == [1, 2, 3, 4, 5]
        await place.announcer.close()
        await asyncio.sleep(1)
        assert place.heard[-1].gone

    in_a_pool(step)


def test_who_begins_to_look_hears_it_at_once() -> None:
    async def step(place: Place) -> None:
        await asyncio.sleep(1)
        for _ in range(50):
            await place.connection.publish(subjects.look("default"))
        await asyncio.sleep(0.1)
        assert len(place.heard) == 2, "once for all who asked"

    in_a_pool(step)


def test_a_map_is_paused_restricted_and_resumed_while_it_runs() -> None:
    async def step(place: Place) -> None:
        opened = await place.open(400)
        await asyncio.sleep(5)
        [row] = place.heard[-1].maps
        assert row.state == "running" and row.cores > 1 and row.left is not None
        assert (await place.ask("pause", row.id)).refusal == ""
        await asyncio.sleep(3)
        done = opened.done
        await asyncio.sleep(20)
        assert opened.done == done and place.heard[-1].maps[0].waits == "a pause"
        await place.ask("limit", row.id, 1)
        await place.ask("resume", row.id)
        await asyncio.sleep(20)
        assert len(opened.ledger.flights) == 1 and place.heard[-1].maps[0].limit == 1
        assert 120 <= opened.done - done <= 210, "one core, a tenth of a second an item"
        details = (await place.ask("map", row.id)).map
        assert details is not None and details.compute > 10 and details.bins
        await place.ask("limit", row.id, 0)
        async for _ in opened:
            pass
        assert opened.done == 400

    in_a_pool(step)


def test_a_map_that_is_cancelled_raises_and_frees_its_cores() -> None:
    async def step(place: Place) -> None:
        opened = await place.open(10_000)
        await asyncio.sleep(4)
        assert (await place.ask("cancel", opened.id)).refusal == ""
        try:
            async for _ in opened:
                pass
        except MapCancelled as error:
            assert "cancelled after" in str(error)
        else:
            raise AssertionError("it ended as if it were done")
        await asyncio.sleep(3)
        [row] = place.heard[-1].maps
        assert (row.state, row.outcome) == ("ended", "withdrawn")
        assert "has ended" in (await place.ask("pause", opened.id)).refusal

    in_a_pool(step)


def test_what_it_does_not_know_is_refused_with_the_reason() -> None:
    async def step(place: Place) -> None:
        await asyncio.sleep(1)
        opened = await place.open(50)
        assert "forgotten" in (await place.ask("failure", "k")).refusal
        assert "not here" in (await place.ask("map", "m")).refusal
        assert "cannot fly" in (await place.ask("fly", opened.id)).refusal

    in_a_pool(step)


def test_a_program_has_a_name() -> None:
    assert program()
