"""The functions that an agent offers, their name and their place on the broker."""

from __future__ import annotations

import logging

import msgspec
import pytest

from jetmap.agent.offer import Offer
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.errors import BrokerUnreachable
from jetmap.nats.errors import NoResponders
from jetmap.nats.memory import MemoryBroker, MemoryConnection
from jetmap.settings import Settings
from jetmap.wire import pool_streams, subjects
from jetmap.wire.presence import FunctionInfo
from jetmap.wire.worker_start import Ready

pytestmark = pytest.mark.anyio


def offer(connection: MemoryConnection | None = None, *, trust: bool = False, **more: str) -> Offer:
    setup = msgspec.structs.replace(worker_setup(Settings()), trust=trust)
    options = AgentOptions(Settings(**more), setup, (), "")  # type: ignore[arg-type]
    return Offer(connection or MemoryBroker().connect(), options)


def ready(*names: str, source: str = "s") -> Ready:
    return Ready([FunctionInfo(name) for name in names], source, [])


def test_equal_functions_of_one_version_are_one_offer() -> None:
    first, second = offer(), offer()
    assert first.update(ready("f", "g")) and second.update(ready("g", "f"))
    assert first.name == second.name != ""
    for other in (ready("f"), ready("f", "g", source="changed")):
        another = offer()
        another.update(other)
        assert another.name != first.name
    lacking = offer()
    lacking.update(ready("f", "g"), ["m:f()"])
    assert lacking.name != first.name, "chunks of the others' f must not come here"
    trusting = offer(trust=True)
    trusting.update(ready("f", "g"))
    assert trusting.name != first.name


def test_a_new_source_is_another_offer_unless_the_version_is_given() -> None:
    found = offer()
    assert found.update(ready("f"))
    assert not found.update(ready("f"))
    before = found.name
    assert found.update(ready("g", source="changed"))
    assert found.name != before and set(found.functions) == {"g"}
    named = offer(version="1")
    assert named.update(ready("f"))
    assert not named.update(ready("g", source="changed"))
    assert named.version == "1" and set(named.functions) == {"f", "g"}


async def test_it_is_written_once_to_each_stream() -> None:
    broker = MemoryBroker()
    found = offer(broker.connect())
    assert not await found.keep(), "there is nothing to write yet"
    found.update(ready("f"))
    await found.find_consumers()
    assert await found.keep() and found.rank > 0
    assert not await found.keep()
    # Another offer is newer.
    other = offer(broker.connect(), version="2")
    other.update(ready("f"))
    await other.find_stream()
    assert await other.keep() and other.rank > found.rank
    assert other.epoch == found.epoch
    broker.restart(keep_files=False)
    await found.find_stream()
    assert await found.keep(), "the stream is another one"


async def test_the_last_number_of_shards_that_was_set_counts_for_all() -> None:
    broker = MemoryBroker()
    first, second = offer(broker.connect()), offer(broker.connect())
    for each in (first, second):
        assert not await each.find_shards() and each.shards == 1
        each.update(ready("f"))
    assert await first.find_shards(3) and first.name == f"{second.name}=3"
    assert not await first.find_shards(3), "nothing has changed"
    assert not await second.find_shards() and second.name == first.name
    await second.find_consumers()
    assert list(second.epochs) == subjects.queues("default", second.name)
    assert await second.find_shards(1) and first.follow(1) and first.name == second.name
    assert not first.follow(1)


async def test_a_number_that_is_set_while_it_is_read_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = offer()
    tries = 0

    async def shards(*arguments: object) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise NoResponders("a leader is being elected")
        found.follow(3)
        return 1

    monkeypatch.setattr(pool_streams, "shards", shards)
    monkeypatch.setattr(found._connection, "clustered", True)
    assert not await found.find_shards(patience=5.0)
    assert (tries, found.shards) == (2, 3)


async def test_a_broker_that_is_away_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*arguments: object) -> int:
        raise BrokerUnreachable("it is away")

    found = offer()
    found.update(ready("f"))
    monkeypatch.setattr(pool_streams, "remember", away)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await found.keep()
    assert caplog.text.count("could not be written to the broker: it is away") == 1
