"""A caller that does not take its results for a while: nothing is lost, and little is kept."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster
from jetmap.nats.connection import Connection, NatsSubscription
from jetmap.nats.server import NatsServer
from jetmap.settings import Settings
from servers import Site, outcomes, site
from waiting import wait_until, wait_until_sync

pytestmark = pytest.mark.anyio

LARGE = 500_000
MIB = 2**20


class ImpatientServer(NatsServer):
    """Cuts off a client for which more than a mebibyte waits."""

    def _configuration(self, directory: Path, log: Path) -> str:
        return super()._configuration(directory, log) + "max_pending: 1MB\n"


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, ImpatientServer, directory=tmp_path / "nats") as there:
        yield there


async def large_values(
    cluster: Cluster, hold: Callable[[], None], again: Callable[[], bool] = bool
) -> None:
    """Three maps; in the midst of them the event loop is held, and later again if need be.

    (A value's size tells whose it is.)
    """
    expected = range(LARGE, LARGE + 80)
    seen = 0

    def look() -> None:
        nonlocal seen
        seen += 1
        if seen == 30 or (seen % 30 == 0 and again()):
            hold()

    async def one() -> list[int]:
        stream = cluster.stream(functions.gate, [("", size) for size in expected])
        return [len(outcome.value) for outcome in await outcomes(stream, look)]

    assert await asyncio.gather(one(), one(), one()) == [list(expected)] * 3


def hold() -> None:
    """Longer than two beats: agents send again what is not confirmed."""
    time.sleep(5)  # The fault: user's code that does not let the event loop run.


@pytest.mark.slow
async def test_large_results_while_the_loop_is_held(place: Site, own: Cluster) -> None:
    await place.agent(own, cores=4)
    await large_values(own, hold)


@pytest.mark.slow
async def test_results_that_the_client_drops(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # As where a subscription's queue is short: what comes while the loop is held is lost.
    subscribe = Connection.subscribe

    async def short(
        self: Connection, subject: str, callback: Callable[..., Any], **options: Any
    ) -> NatsSubscription:
        if subject.endswith((".result", ".claim")):
            options = {"pending_msgs": 1}
        return await subscribe(self, subject, callback, **options)

    monkeypatch.setattr(Connection, "subscribe", short)
    own = await place.cluster()
    await place.agent(own, cores=4)
    connection = own._session.connection
    await large_values(own, hold, lambda: connection.errors == 0)
    assert connection.errors > 0, "nothing was dropped"


async def test_a_caller_that_the_broker_cuts_off(
    impatient: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETMAP_ARENA_BYTES", "1")  # The values pass through the broker.
    log = impatient.place / "nats" / "nats-server.log"

    def is_cut_off() -> bool:
        return "Slow Consumer Detected" in log.read_text()

    def hold_until_then() -> None:
        # Agents send their results again, until the server has enough of it.
        wait_until_sync(is_cut_off, "it is cut off")

    cluster = await impatient.cluster()
    await impatient.agent(cluster, cores=4)
    # Else the system would keep for it what comes.
    transport = cluster._session.connection._client._transport._writer
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    await large_values(cluster, hold_until_then)


@pytest.mark.slow
async def test_a_slow_first_item_bounds_what_is_held_back(place: Site, tmp_path: Path) -> None:
    size, count, limit = 50_000, 2_000, 8 * MIB
    gate = tmp_path / "gate"
    taken = 0

    def items() -> Iterator[tuple[str, int]]:
        nonlocal taken
        for n in range(count):
            taken += 1
            yield (str(gate) if n == 0 else "", size + n)

    settings = Settings.load(nats_url=place.server.url, max_buffer_bytes=limit)
    async with Cluster(settings=settings) as own:
        await place.agent(own)
        # So that its cost is known, and chunks have several items.
        assert len(await own.map(functions.gate, [("", size)] * 100)) == 100
        stream = own.stream(functions.gate, items(), ordered=True)
        first = asyncio.ensure_future(anext(stream))
        await wait_until(lambda: own.stats.maps_open == 1, "it is open")
        (run,) = own._session.dispatcher._maps
        await wait_until(lambda: run.buffered >= limit, "the buffer is full")
        # Then nothing is out but the first item. What was when it became full came on top: as much
        # again, at most, and a chunk.
        await wait_until(lambda: len(run.ledger.flights) == 1, "all else is done")
        await place.until_busy(own, 1)
        assert not first.done() and run.buffered <= 2 * limit + 2 * MIB
        assert size * run.done <= run.buffered and taken < count // 4
        gate.touch()
        seen = [await first, *[outcome async for outcome in stream]]
        assert [outcome.index for outcome in seen] == list(range(count))
        assert [len(outcome.value) for outcome in seen] == [size + n for n in range(count)]
