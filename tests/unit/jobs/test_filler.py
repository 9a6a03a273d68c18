"""Room kept for records: filled while there is room, released when a record needs it."""

from __future__ import annotations

import pytest

from jetmap.jobs import streams
from jetmap.jobs.filler import Filler
from jetmap.jobs.store import Store
from jetmap.nats.memory import MemoryBroker, MemoryConnection
from jetmap.settings import JobSettings
from jetmap.wire import subjects

pytestmark = pytest.mark.anyio

STREAM = subjects.job_stream("p", "SPARE")


async def messages(connection: MemoryConnection) -> int:
    info = await connection.api(f"STREAM.INFO.{STREAM}")
    return int(info["state"]["messages"])


async def test_it_is_filled_released_and_filled_again() -> None:
    connection = MemoryBroker().connect()
    filler = Filler(connection, "p")
    await filler.ensure((1,))
    assert await messages(connection) == subjects.SPARE_PIECES and not filler.is_released
    assert await filler.release() and filler.is_released
    assert await messages(connection) == 0
    assert not await filler.release(), "there was none"
    assert await filler.fill() and not filler.is_released
    assert await messages(connection) == subjects.SPARE_PIECES


async def test_without_its_stream_nothing_is_kept() -> None:
    connection = MemoryBroker().connect()
    filler = Filler(connection, "p")
    assert not await filler.fill()
    assert not await filler.release()


async def test_whether_outcomes_have_room_is_tried_out() -> None:
    connection = MemoryBroker().connect()
    store = Store(connection, "p")
    await streams.ensure(connection, store, JobSettings())
    assert await store.filler.probe_room()
    assert await messages(connection) == subjects.SPARE_PIECES, "what it tried with is removed"
    config = (await connection.api(f"STREAM.INFO.{STREAM}"))["config"]
    await connection.api(f"STREAM.UPDATE.{STREAM}", config | {"max_bytes": store.filler.size // 2})
    await store.filler.release()
    assert not await store.filler.probe_room()
