"""Payloads larger than a message of the broker travel in parts, within limits of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster, ItemError
from servers import Site, site
from waiting import PATIENCE

pytestmark = pytest.mark.anyio


async def test_large_items_of_many_maps_at_once(shared: Cluster) -> None:
    """Small chunks share a message, as far as their bytes fit into one."""
    await shared.map(functions.measure, ["a"] * 100)  # So that it is known to be quick.
    sizes = [60_000, 100_000, 250_000, 10] * 12
    maps = (shared.map(functions.measure, ["x" * size]) for size in sizes)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*maps) == [[size] for size in sizes]


@pytest.mark.parametrize("size", [90_000, 400_000, 2_000_000])
async def test_keyword_parameters_leave_room_for_the_items(shared: Cluster, size: int) -> None:
    items = ["a" * 250_000, "a" * 850_000, *["a" * 90_000] * 30]
    async with asyncio.timeout(PATIENCE):
        found = await shared.map(functions.measure, items, kwargs={"beside": "x" * size})
    assert found == [len(item) + size for item in items]


async def test_the_limits_are_the_settings_and_not_the_brokers(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETMAP_MAX_ITEM_BYTES", "3MiB")
    monkeypatch.setenv("JETMAP_CHUNK_BYTES", "2MiB")
    monkeypatch.setenv("JETMAP_REPORT_BYTES", "2MiB")
    cluster = await place.cluster()
    await place.agent(cluster)
    async with asyncio.timeout(PATIENCE):
        found: list[Any] = await cluster.map(
            functions.zeros, [3_500_000, 2_500_000, *[10_000] * 500], return_exceptions=True
        )
        items: list[Any] = await cluster.map(
            functions.measure,
            ["x" * size for size in [3_500_000, 2_500_000, *[10_000] * 500]],
            return_exceptions=True,
        )
    assert [len(value) for value in found[1:]] == [2_500_000, *[10_000] * 500]
    assert items[1:] == [2_500_000, *[10_000] * 500]
    for error in (found[0], items[0]):
        assert isinstance(error, ItemError) and error.kind == "unencodable"
        assert "the limit is 3,145,728" in error.message and "max_item_bytes" in error.message


@pytest.mark.slow
async def test_a_broker_is_replaced_by_one_of_smaller_messages(tmp_path: Path) -> None:
    """Chunks and results made for the larger messages end, too."""
    async with site(tmp_path) as place:
        cluster = await place.cluster()
        await place.agent(cluster)
        large = cluster.map(functions.measure, ["x" * 100_000] * 4, return_exceptions=True)
        assert await large == [100_000] * 4
        port = place.server.port
        await place.server.stop()
        place.server = type(place.server)(port=port, max_payload=64 << 10)
        await place.server.start()
        async with asyncio.timeout(PATIENCE):
            await place.workers(cluster)
            sizes = [10, 200_000, 300_000, 20]
            found = await cluster.map(functions.zeros, sizes)
            assert await cluster.map(functions.measure, ["x" * size for size in sizes]) == sizes
    assert [len(value) for value in found] == sizes
