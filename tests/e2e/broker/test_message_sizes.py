"""Payloads larger than a message of the broker end with a sentence, and nothing waits for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import functions
from jetmap import Cluster, ItemError, LimitExceeded
from servers import Site, site

pytestmark = pytest.mark.anyio

SMALL = 128 << 10  # max_payload of a server that somebody else has set up


async def test_large_items_of_many_maps_at_once(shared: Cluster) -> None:
    """Small chunks share a message, as far as their bytes fit into one."""
    await shared.map(functions.measure, ["a"] * 100)  # So that it is known to be quick.
    sizes = [60_000, 100_000, 250_000, 10] * 12
    maps = (shared.map(functions.measure, ["x" * size]) for size in sizes)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*maps) == [[size] for size in sizes]


async def test_what_travels_with_each_chunk_is_limited(shared: Cluster) -> None:
    with pytest.raises(LimitExceeded, match=r"take 2,000,\d{3} bytes.*the limit is") as caught:
        await shared.map(functions.measure, ["a"], kwargs={"beside": "x" * 2_000_000})
    assert caught.value.setting == "max_payload"
    # What fits leaves less room for the items.
    kwargs = {"beside": "x" * 400_000}
    async with asyncio.timeout(30):
        found: list[Any] = await shared.map(
            functions.measure,
            ["a" * 250_000, "a" * 850_000, *["a" * 90_000] * 30],
            kwargs=kwargs,
            return_exceptions=True,
        )
    refused = found.pop(1)
    assert isinstance(refused, ItemError) and refused.index == 1
    assert refused.kind == "unencodable" and "leaves room for" in refused.message
    assert found == [650_000, *[490_000] * 30]


async def test_a_server_with_small_messages(tmp_path: Path) -> None:
    async with site(tmp_path, max_payload=SMALL) as place:
        cluster = await place.cluster()
        await place.agent(cluster)
        await values_within(cluster)
        await items_within(cluster)


async def values_within(cluster: Cluster) -> None:
    """One value that is too large; and many that are not, singly."""
    sizes = [200_000, *[10_000] * 200]
    async with asyncio.timeout(30):
        found: list[Any] = await cluster.map(functions.zeros, sizes, return_exceptions=True)
    assert [len(value) for value in found[1:]] == sizes[1:]
    assert isinstance(found[0], ItemError) and found[0].kind == "unencodable"
    assert "max_payload" in found[0].message


async def items_within(cluster: Cluster) -> None:
    sizes = [200_000, *[1000] * 5000]
    async with asyncio.timeout(30):
        found: list[Any] = await cluster.map(
            functions.measure, ["x" * size for size in sizes], return_exceptions=True
        )
    assert found[1:] == sizes[1:]
    assert isinstance(found[0], ItemError) and found[0].kind == "unencodable"
    assert "max_payload" in found[0].message


async def test_limits_that_are_set_beyond_the_brokers(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings are what is wanted; the broker's largest message is what there is."""
    monkeypatch.setenv("JETMAP_MAX_ITEM_BYTES", "3MiB")
    monkeypatch.setenv("JETMAP_CHUNK_BYTES", "2MiB")
    monkeypatch.setenv("JETMAP_REPORT_BYTES", "2MiB")
    cluster = await place.cluster()
    await place.agent(cluster)
    async with asyncio.timeout(30):
        found: list[Any] = await cluster.map(
            functions.zeros, [1_500_000, *[10_000] * 500], return_exceptions=True
        )
        items = await cluster.map(functions.measure, ["x" * 10_000] * 500)
    assert [len(value) for value in found[1:]] == [10_000] * 500
    assert isinstance(found[0], ItemError) and "the limit is" in found[0].message
    assert items == [10_000] * 500


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
        async with asyncio.timeout(40):
            await place.workers(cluster)
            found: list[Any] = await cluster.map(
                functions.zeros, [10, 200_000, 300_000, 20], return_exceptions=True
            )
    assert [len(found[0]), len(found[3])] == [10, 20]
    for error in found[1:3]:
        assert isinstance(error, ItemError) and error.kind == "unencodable"
