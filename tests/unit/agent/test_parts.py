"""Items fetched and values pushed in parts, over a network that loses, doubles and reorders."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.agent import parts
from jetmap.agent.holdings import HeldChunk
from jetmap.agent.parts import AGAIN_SECONDS, PARTS_OUT, Transfer, Transfers
from jetmap.nats.broker import Message
from jetmap.nats.memory import MemoryBroker
from jetmap.wire.messages import ChunkHead, PartRequest, Place, ReportHead
from virtual_time import run

_request = msgspec.msgpack.Decoder(PartRequest).decode
FATES = st.lists(st.sampled_from([(), (0.0,), (0.0, 0.0), (0.3,), (2.0,), (0.0, 5.0)]), max_size=60)
PART = 100  # Bytes of a part in these tests.


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", PART)


class Bench:
    """An agent's transfers, and a dispatcher that answers them."""

    def __init__(self, items: bytes = b"", network: Callable[..., Sequence[float]] | None = None):
        more = {} if network is None else {"network": network}
        self.broker = MemoryBroker(**more)  # type: ignore[arg-type]
        self.connection = self.broker.connect()
        self.caller = self.broker.connect()
        self.parts = Transfers(self.connection, "a1", self.connection.inbox("a1"))
        head = ChunkHead("m", 3, 1, "f", "json", 0, 1, "_INBOX.d1", None, 0.0)
        self.held = HeldChunk(head, [], b"", 0, 0, None)  # type: ignore[arg-type]
        self.items = items
        self.values: dict[int, bytes] = {}
        self.asked: Counter[int] = Counter()
        self.wanted = self.answers = True
        self.most = 0

    async def start(self) -> None:
        await self.parts.start()
        await self.caller.subscribe("_INBOX.d1.part", self._on_request)
        await self.caller.subscribe("_INBOX.d1.values.>", self._on_values)

    async def _on_request(self, message: Message) -> None:
        request = _request(message.data)
        assert (request.map, request.number, request.size) == ("m", 3, len(self.items))
        self.asked[request.offset] += 1
        part = self.items[request.offset : request.offset + request.length]
        if self.answers:
            await self.caller.publish(message.reply, part if self.wanted else b"")

    async def _on_values(self, message: Message) -> None:
        name, offset = message.subject.rsplit(".", 1)
        assert name == "_INBOX.d1.values.a1.m.3.1.7"
        self.values[int(offset)] = message.data
        if self.answers:
            await self.caller.publish(message.reply, b"" if self.wanted else b"-")

    async def fetch(self) -> list[bytes] | None:
        return await self.parts.fetch(self.held, Place("_INBOX.d1", len(self.items)))

    async def push(self, values: bytes) -> bool:
        return await self.parts.push(self.held, ReportHead("m", 3, 1, 7, 1), values)

    async def close(self) -> None:
        await self.parts.close()
        await self.connection.close()
        await self.caller.close()


@examples(60)
@given(FATES, st.integers(1, 20 * PART), st.integers(0, 99))
def test_everything_arrives_once_whatever_the_network_does(
    fates: list[tuple[float, ...]], size: int, seed: int
) -> None:
    left = list(fates)
    payload = Random(seed).randbytes(size)

    def network(subject: str, data: bytes) -> Sequence[float]:
        return left.pop() if left and subject.startswith("_INBOX") else (0.0,)

    async def scenario() -> None:
        bench = Bench(payload, network)
        await bench.start()
        fetched, pushed = await asyncio.gather(bench.fetch(), bench.push(payload))
        assert fetched is not None and b"".join(fetched) == payload and pushed
        assert b"".join(bench.values[at] for at in sorted(bench.values)) == payload
        assert bench.parts.is_idle
        await bench.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", PART)
        run(scenario())


@pytest.mark.parametrize("how", ["fetch", "push"])
def test_what_is_not_wanted_any_more_ends_at_once(how: str) -> None:
    async def scenario() -> None:
        bench = Bench(b"x" * 30 * PART)
        bench.wanted = False
        await bench.start()
        found: Any = await (bench.fetch() if how == "fetch" else bench.push(bench.items))
        assert not found and bench.parts.is_idle
        assert sum(bench.asked.values()) + len(bench.values) <= PARTS_OUT
        await bench.close()

    run(scenario())


def test_a_withdrawn_chunk_is_not_fetched_on() -> None:
    async def scenario() -> None:
        bench = Bench(b"x" * 30 * PART)
        bench.answers = False
        await bench.start()
        fetching = asyncio.ensure_future(bench.fetch())
        await asyncio.sleep(0.01)
        bench.held.unwanted = True
        bench.parts.check()
        await asyncio.sleep(0)
        assert await fetching is None
        await bench.close()

    run(scenario())


def test_no_responders_means_nothing() -> None:
    """The caller may be connecting again."""

    async def scenario() -> None:
        bench = Bench(b"x" * 3 * PART)
        await bench.parts.start()
        both = asyncio.gather(bench.fetch(), bench.push(bench.items))
        await asyncio.sleep(3.5 * AGAIN_SECONDS)
        assert not both.done()
        await bench.start()
        fetched, pushed = await both
        assert fetched == [b"x" * PART] * 3 and pushed
        await bench.close()

    run(scenario())


def test_parts_shrink_with_the_messages_of_the_broker() -> None:
    async def scenario() -> None:
        bench = Bench(bytes(range(250)))
        bench.answers = False
        await bench.start()
        both = asyncio.gather(bench.fetch(), bench.push(bench.items))
        await asyncio.sleep(0.01)
        bench.broker.max_payload = 60  # Half of it is the envelope's.
        bench.answers = True
        fetched, pushed = await both
        assert fetched is not None and b"".join(fetched) == bench.items and pushed
        assert max(map(len, fetched)) == 30 and bench.values[0] == bench.items[:30]
        await bench.close()

    run(scenario())


@examples(100)
@given(st.integers(1, 5000), st.integers(1, 300), st.randoms(use_true_random=False))
def test_at_most_eight_are_out_and_each_is_done_once(size: int, part: int, order: Random) -> None:
    transfer, out, done = Transfer(size, part), set[int](), set[int]()
    now = 0.0
    while not transfer.is_complete:
        out.update(transfer.due(now))
        assert 0 < len(out) <= PARTS_OUT
        at = order.choice(sorted(out))
        out.discard(at)
        assert transfer.on_done(at, now) and not transfer.on_done(at, now)
        done.add(at)
        now += 0.01
    assert sum(transfer.length(at) for at in done) == size


def test_over_a_slow_link_no_part_is_asked_for_twice() -> None:
    """Each takes most of a second, so the last of eight comes seven seconds after it was asked."""
    transfer, now = Transfer(100, 10), 0.0
    queue = transfer.due(now)
    asked = list(queue)
    while not transfer.is_complete:
        now += 0.9
        transfer.on_done(queue.pop(0), now)
        more = transfer.due(now)
        queue += more
        asked += more
    assert sorted(asked) == list(range(0, 100, 10))


def test_a_lost_part_is_asked_for_again() -> None:
    transfer = Transfer(30, 10)
    assert transfer.due(0.0) == [0, 10, 20]
    assert transfer.due(0.9) == []
    transfer.on_done(10, 0.9)
    # The part before it was overtaken; the part behind it may still come.
    assert transfer.due(1.0) == [0]
    assert transfer.due(2.0) == [0, 20]
    assert transfer.due(2.5) == []
