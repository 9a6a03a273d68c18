"""Room in the store: it is waited for, and a lack of it is found when no outcomes come."""

from __future__ import annotations

import asyncio
from typing import cast

from jetmap.errors import NoRoom
from jetmap.jobs.filler import Filler
from jetmap.jobs.room import FULL, ROOM_SECONDS, RoomCheck, until_room
from virtual_time import run


def test_what_the_store_refuses_for_want_of_room_is_stored_later() -> None:
    refusals = [NoRoom("full", used=1, limit=1, wanted=1) for _ in range(2)]

    async def store() -> int:
        if refusals:
            raise refusals.pop()
        return 7

    async def test() -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        assert await until_room(store) == 7
        assert clock() - began == 2 * ROOM_SECONDS, "in virtual time"

    run(test())


class Probed:
    """A filler whose probes are counted. has_room: what they find."""

    def __init__(self) -> None:
        self.has_room = True
        self.probes = 0

    async def probe_room(self) -> bool:
        self.probes += 1
        return self.has_room


def test_the_store_is_probed_only_while_no_outcomes_come() -> None:
    async def test() -> None:
        filler = Probed()
        check = RoomCheck(cast(Filler, filler))
        for now in range(10):
            assert await check.lack(now, float(now)) is None
        assert not filler.probes, "outcomes came all the time"
        filler.has_room = False
        assert await check.lack(9, 9 + ROOM_SECONDS) == FULL
        assert await check.lack(9, 9.5 + ROOM_SECONDS) == FULL
        assert filler.probes == 1, "as it was found a moment ago"
        filler.has_room = True
        assert await check.lack(9, 9 + 2 * ROOM_SECONDS) is None

    run(test())


def test_a_new_outcome_ends_what_was_found_before_it() -> None:
    async def test() -> None:
        filler = Probed()
        filler.has_room = False
        check = RoomCheck(cast(Filler, filler))
        await check.lack(5, 0.0)
        assert await check.lack(5, ROOM_SECONDS) == FULL
        assert await check.lack(6, ROOM_SECONDS + 0.5) is None
        assert await check.lack(6, ROOM_SECONDS + 1.0) is None, "it was stored: there is room"

    run(test())
