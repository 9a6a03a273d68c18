"""Maps that may not begin, and maps that wait to."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from dispatching import FUNCTION, presence
from jetmap.dispatch.admission import BROKER_SECONDS, MapAdmission
from jetmap.dispatch.agent_tracker import AgentTracker
from jetmap.dispatch.map_spec import MapSpec
from jetmap.errors import (
    BrokerUnreachable,
    LimitExceeded,
    NoWorkers,
    TooManyMaps,
    UnknownFunction,
)
from jetmap.nats.memory import MemoryBroker
from jetmap.wire import subjects
from jetmap.wire.messages import FunctionRef, encode
from jetmap.wire.presence import Presence
from virtual_time import run as in_virtual_time

SPEC = MapSpec(function=FUNCTION, format="json")


class Door:
    """An admission, and the broker behind it."""

    def __init__(self, max_open_maps: int = 2) -> None:
        async def announced(presence: Presence) -> None: ...

        broker = MemoryBroker()
        self.connection, self.other = broker.connect(), broker.connect()
        self.agents = AgentTracker(self.connection, "p", announced)
        self.admission = MapAdmission(self.connection, self.agents, max_open_maps, 5.0)
        self.connection.on_reconnect(self._on_reconnect)

    async def _on_reconnect(self) -> None:
        self.admission.on_reconnect()

    async def announce(self) -> None:
        await self.other.publish(subjects.presence("p", "a"), encode(presence()))


def test_a_map_waits_for_its_function_to_be_announced() -> None:
    async def scenario() -> None:
        door = Door()
        await door.agents.subscribe()
        admitted = asyncio.ensure_future(door.admission.admit(SPEC, 0))
        await asyncio.sleep(1)
        assert door.admission.waiting == 1 and not admitted.done()
        await door.announce()
        await admitted
        assert door.admission.waiting == 0

    in_virtual_time(scenario())


def test_a_function_that_nobody_announces_is_unknown() -> None:
    async def scenario() -> None:
        door = Door()
        await door.agents.subscribe()
        with pytest.raises(UnknownFunction, match="ever announced a function 'f' in pool 'p'"):
            await door.admission.admit(SPEC, 0)
        assert door.admission.waiting == 0

    in_virtual_time(scenario())


def test_a_map_waits_while_an_embedded_cluster_is_started_anew() -> None:
    """It gets as long as the start may take, and a sentence about that if it takes longer."""

    async def scenario() -> None:
        door = Door()
        await door.agents.subscribe()
        door.agents.own(lambda: not door.agents.roster.agents, 60.0)
        admitted = asyncio.ensure_future(door.admission.admit(SPEC, 0))
        await asyncio.sleep(50)
        assert not admitted.done()
        await door.announce()
        await admitted

    in_virtual_time(scenario())

    async def in_vain() -> None:
        door = Door()
        await door.agents.subscribe()
        door.agents.own(lambda: True, 60.0)
        spec = msgspec.structs.replace(SPEC, ref=FunctionRef("m", "f"))
        with pytest.raises(NoWorkers, match=r"was ready after 60 s \(start_timeout\): their"):
            await door.admission.admit(spec, 0)

    in_virtual_time(in_vain())


def test_maps_that_wait_count_as_open_but_jobs_do_not() -> None:
    async def scenario() -> None:
        door = Door()
        await door.agents.subscribe()
        job = asyncio.ensure_future(door.admission.admit(SPEC, None))
        first = asyncio.ensure_future(door.admission.admit(SPEC, 1))
        await asyncio.sleep(1)
        assert door.admission.waiting == 1
        with pytest.raises(TooManyMaps, match=r"2 maps are open.*max_open_maps") as caught:
            await door.admission.admit(SPEC, 1)
        assert (caught.value.setting, caught.value.limit) == ("max_open_maps", 2)
        await door.announce()
        await asyncio.gather(first, job)
        await door.admission.admit(SPEC, None)

    in_virtual_time(scenario())


def test_keyword_parameters_leave_room_for_items() -> None:
    door = Door()
    half = door.connection.room // 2
    door.admission.check_overhead(half)
    with pytest.raises(LimitExceeded, match="half of the broker's largest message") as caught:
        door.admission.check_overhead(half + 1)
    assert (caught.value.setting, caught.value.limit) == ("max_payload", half)


def test_a_map_waits_for_a_broker_that_restarts_but_not_for_long() -> None:
    async def scenario() -> None:
        door = Door()
        await door.agents.subscribe()
        await door.announce()
        await asyncio.sleep(0.1)
        door.connection.lose()
        admitted = asyncio.ensure_future(door.admission.admit(SPEC, 0))
        await asyncio.sleep(BROKER_SECONDS / 2)
        assert not admitted.done()
        door.connection.restore()
        await admitted
        door.connection.lose()
        with pytest.raises(BrokerUnreachable, match="lost for at least 3 s"):
            await door.admission.admit(SPEC, 0)
        assert door.admission.waiting == 0

    in_virtual_time(scenario())
