"""The half of a cluster that gateways use: its life, and maps of encoded items."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import msgspec
import pytest

from jetmap import (
    Cluster,
    ClusterClosed,
    UnknownFunction,
    task,
)
from jetmap.dispatch.sources import RawItems
from jetmap.settings import Settings
from simulated_pool import SimulatedPool

pytestmark = pytest.mark.anyio

URL = "nats://memory:4222"


@task(name="encoded.text")
def text(n: int) -> str:
    return str(n)


async def test_a_map_of_encoded_items(pool: SimulatedPool) -> None:
    await pool.agent()
    async with Cluster(URL) as cluster:
        source = RawItems([b"\x01", b"\x02"], "msgpack")
        async with await cluster.open("double", source, format="msgpack") as running:
            batches = [batch async for batch in running]
        assert [msgspec.msgpack.decode(batch.values) for batch in batches] in ([[2, 4]], [[2], [4]])
        assert (cluster.stats.items_done, cluster.open_maps) == (2, 0)
        info = cluster.info("double")
        assert info is not None and info.name == "double"
        assert cluster.info("nobody_has_it") is None
        with pytest.raises(UnknownFunction):
            await cluster.open("nobody_has_it", RawItems([b"\x01"], "msgpack"), format="msgpack")


async def test_its_life(pool: SimulatedPool) -> None:
    cluster = Cluster(URL)
    assert (cluster.is_started, cluster.connected, cluster.is_foreign) == (False, False, False)
    with pytest.raises(ClusterClosed, match=r"or is closed: use it in 'async with Cluster\(\)'"):
        _ = cluster.stats
    async with cluster:
        assert (cluster.is_started, cluster.connected) == (True, True)
        with pytest.raises(ClusterClosed, match="started already"):
            await cluster._start()
    await cluster.aclose()
    assert not cluster.is_started
    with pytest.raises(ClusterClosed):
        _ = cluster.jobs
    again = await Cluster.start(URL)
    assert again.is_started
    await again.aclose()


async def test_a_setting_limits_an_item_and_the_broker_does_not(pool: SimulatedPool) -> None:
    settings = Settings(max_item_bytes=10**9, nats_url=URL)
    async with Cluster(settings=settings) as cluster:
        assert cluster.max_item == 10**9 > cluster._session.connection.max_payload
    async with Cluster(inline=True, settings=settings) as cluster:
        assert cluster.max_item == 10**9


@pytest.mark.parametrize(
    ("in_item", "message"), [(True, "its core would wait for itself"), (False, "__main__")]
)
async def test_not_in_a_worker(
    monkeypatch: pytest.MonkeyPatch, in_item: bool, message: str
) -> None:
    cluster = Cluster(inline=True)
    worker = SimpleNamespace(in_item=in_item, in_worker=True)
    monkeypatch.setitem(sys.modules, "jetmap.worker.main", worker)  # type: ignore[arg-type]
    with pytest.raises(ClusterClosed, match=message):
        async with cluster:
            pass
    if not in_item:
        Cluster(inline=True)  # A module that workers import may make one.
