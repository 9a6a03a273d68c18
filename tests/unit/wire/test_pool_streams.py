"""Streams, consumers and keys of a pool, on both brokers."""

from __future__ import annotations

import asyncio
import json

import pytest

from brokers import Brokers
from jetmap.errors import TopologyMismatch
from jetmap.nats import jetstream
from jetmap.nats.answers import JetStreamError, checked
from jetmap.nats.broker import Broker
from jetmap.settings import StreamSettings
from jetmap.wire import pool_streams, subjects
from jetmap.wire.pool_streams import ensure_consumers, ensure_stream, known, remember
from jetmap.wire.presence import FunctionInfo

pytestmark = pytest.mark.anyio
POOL = "p"


async def publish(c: Broker, offer: str, chunk: int) -> None:
    checked(await c.request(subjects.work(POOL, offer, "main", "m", chunk), b"chunk"))


async def waiting(c: Broker) -> int:
    info = await c.api(f"STREAM.INFO.{subjects.stream(POOL)}")
    count: int = info["state"]["messages"]
    return count


async def test_racing_processes_get_one_stream_with_one_epoch(c: Broker) -> None:
    epochs = await asyncio.gather(*(ensure_stream(c, POOL) for _ in range(8)))
    assert len(set(epochs)) == 1
    assert len(epochs[0]) == 8


async def test_a_stream_made_anew_has_another_epoch(c: Broker) -> None:
    epoch = await ensure_stream(c, POOL)
    await c.api(f"STREAM.DELETE.{subjects.stream(POOL)}")
    assert await ensure_stream(c, POOL) != epoch


async def test_a_chunk_that_waits_is_refused_a_second_time(c: Broker) -> None:
    await ensure_stream(c, POOL)
    await publish(c, "o", 1)
    with pytest.raises(JetStreamError) as caught:
        await publish(c, "o", 1)
    assert caught.value.err_code == 10077
    await publish(c, "o", 2)
    assert await pool_streams.purge(c, POOL, subjects.map_work(POOL, "m")) == 2


async def test_operators_choices_are_accepted(c: Broker) -> None:
    epoch = await ensure_stream(c, POOL, StreamSettings(work_storage="file", work_max_messages=5))
    assert await ensure_stream(c, POOL, StreamSettings(work_max_bytes=1000)) == epoch


async def test_another_stream_is_refused_with_every_difference(c: Broker) -> None:
    name = subjects.stream(POOL)
    config = {"name": name, "subjects": ["other"], "max_age": 10**9, "retention": "limits"}
    await c.api(f"STREAM.CREATE.{name}", config)
    with pytest.raises(TopologyMismatch) as caught:
        await ensure_stream(c, POOL)
    for part in ("retention is 'limits'", "max_age is 1000000000", "subjects lack"):
        assert part in str(caught.value)


async def test_a_refused_creation_says_what_to_change(c: Broker) -> None:
    with pytest.raises(JetStreamError, match="work_replicas"):
        await ensure_stream(c, POOL, StreamSettings(work_replicas=3))


async def test_racing_processes_get_the_consumers(c: Broker) -> None:
    epoch = await ensure_stream(c, POOL)
    await asyncio.gather(*(ensure_consumers(c, POOL, "o", epoch) for _ in range(8)))
    page = await c.api(f"CONSUMER.LIST.{subjects.stream(POOL)}", {})
    configs = {item["name"]: item["config"] for item in page["consumers"]}
    assert set(configs) == {f"o-express-{epoch}", f"o-main-{epoch}"}
    main = configs[f"o-main-{epoch}"]
    assert main["filter_subject"] == "jetmap.work.p.o.main.>"
    assert main["max_waiting"] == 65536
    assert main["max_ack_pending"] == -1
    assert main["inactive_threshold"] == 300 * 10**9


async def test_a_changed_consumer_is_refused(c: Broker) -> None:
    epoch = await ensure_stream(c, POOL)
    stream, name = subjects.stream(POOL), subjects.consumer("o", "main", epoch)
    config = {
        "durable_name": name,
        "filter_subject": subjects.lane_work(POOL, "o", "main"),
        "ack_policy": "explicit",
    }
    request = {"stream_name": stream, "config": config}
    await c.api(f"CONSUMER.CREATE.{stream}.{name}", request)
    with pytest.raises(TopologyMismatch, match="ack_wait is 30000000000, not 10000000000"):
        await ensure_consumers(c, POOL, "o", epoch)


async def test_chunks_that_nobody_serves_are_purged_when_old(
    c: Broker, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = await ensure_stream(c, POOL)
    await publish(c, "gone", 1)
    await publish(c, "o-x", 1)
    await ensure_consumers(c, POOL, "o-x", epoch)
    assert await waiting(c) == 2
    monkeypatch.setattr(pool_streams, "INACTIVE", 0.0)
    brokers.passing(1)
    await pool_streams._purge_stranded(c, POOL)
    assert await waiting(c) == 1
    assert await pool_streams.purge(c, POOL, subjects.lane_work(POOL, "o-x", "main")) == 1


async def test_the_number_of_shards_is_the_same_for_all(c: Broker) -> None:
    assert await pool_streams.shards(c, POOL) == 1, "there is no bucket yet"
    await pool_streams.set_shards(c, POOL, 3)
    assert await pool_streams.shards(c, POOL) == 3
    await remember(c, POOL, "o=3", "1", [])
    await pool_streams.set_shards(c, POOL, 2)
    assert await pool_streams.shards(c, POOL) == 2
    for value, read in ((b"", 1), (b"x", 1), (b"0", 1), (b"99999", 32)):
        _, after = await pool_streams.read_key(c, POOL, pool_streams.SHARDS_KEY)
        await pool_streams.write_key(c, POOL, pool_streams.SHARDS_KEY, value, after)
        assert await pool_streams.shards(c, POOL) == read, value


async def test_a_shard_has_a_stream_and_consumers_of_its_own(c: Broker) -> None:
    epochs = {await ensure_stream(c, queue) for queue in (POOL, "p=1", "p=2")}
    assert len(epochs) == 3
    await ensure_consumers(c, "p=2", "o=2", await ensure_stream(c, "p=2"))
    assert await jetstream.consumers(c, subjects.stream(POOL)) == set()
    assert len(await jetstream.consumers(c, subjects.stream("p=2"))) == 2
    checked(await c.request(subjects.work("p=2", "o=2", "main", "m", 1), b"chunk"))
    assert await waiting(c) == 0
    assert await pool_streams.purge(c, "p=2", subjects.map_work("p=2", "m")) == 1
    assert pool_streams.work_wish(c, "p=2", StreamSettings()).copies == (1,)
    assert pool_streams.work_wish(c, "p=2", StreamSettings(work_replicas=3)).copies == (3,)


async def test_ranks_order_offers_by_age(c: Broker) -> None:
    ranks = [await remember(c, POOL, offer, "1", []) for offer in ("a", "b", "a")]
    assert ranks[0] == ranks[2] < ranks[1]
    racing = await asyncio.gather(*(remember(c, POOL, "new", "1", []) for _ in range(8)))
    assert len(set(racing)) == 1
    await c.api("STREAM.DELETE.KV_jetmap_p")
    assert await remember(c, POOL, "newest", "1", []) > racing[0]


async def test_functions_are_known_once_an_offer_had_them(c: Broker) -> None:
    names = ["plain", "with.dots.", "größe", "a-b", "_"]
    assert not await known(c, POOL, "plain")
    await remember(c, POOL, "o", "1", [FunctionInfo(name) for name in names])
    assert [await known(c, POOL, name) for name in names] == [True] * len(names)
    assert not await known(c, POOL, "with.dots")


async def test_the_bucket_is_one_for_nats_tools(c: Broker) -> None:
    await remember(c, POOL, "o", "7", [FunctionInfo("f")])
    value = await c.request("$JS.API.DIRECT.GET.KV_jetmap_p.$KV.jetmap_p.offer.o")
    assert json.loads(value) == {"version": "7", "functions": ["f"]}
