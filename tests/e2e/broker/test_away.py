"""A map that is started while the broker is away."""

from __future__ import annotations

import asyncio

import httpx
import pytest

import functions
from jetmap import BrokerUnreachable
from jetmap.nats.server import NatsServer
from jetmap_api import create_app
from over_http import check_problem
from servers import Site
from waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_a_new_map_is_refused_and_an_open_one_goes_on(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    items = [functions.Work(n, 3000) for n in range(1000)]
    running = asyncio.ensure_future(cluster.map(functions.work, items))
    await wait_until(lambda: cluster.stats.items_done > 100, "the map runs")
    port = place.server.port
    await place.server.stop()
    await wait_until(lambda: not cluster.connected, "it is noticed")

    transport = httpx.ASGITransport(create_app(cluster=cluster))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        asked = asyncio.ensure_future(client.post("/map/empty", json=[1, 2, 3]))
        with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port} has been lost") as caught:
            await cluster.map(functions.empty, [1, 2, 3])
        assert "continue when it is back" in str(caught.value)
        answer = await asked
        check_problem(answer, 503, "no-broker")
        assert int(answer.headers["retry-after"]) > 0

        place.server = NatsServer(port=port)
        await place.server.start()
        assert await running == list(range(1000))
        assert (await client.post("/map/empty", json=[1, 2, 3])).json() == [1, 2, 3]


async def test_a_new_map_waits_for_a_broker_that_is_restarted(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    port = place.server.port
    await place.server.stop()
    await wait_until(lambda: not cluster.connected, "it is noticed")
    waiting = asyncio.ensure_future(cluster.map(functions.empty, [1, 2, 3]))
    place.server = NatsServer(port=port)
    await place.server.start()
    assert await waiting == [1, 2, 3]
