"""The messages of a dispatcher, and their acknowledgements."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from dispatching import Parts
from jetmap.background import Background
from jetmap.dispatch.ack_sampler import EVERY
from jetmap.dispatch.costs import Cutting
from jetmap.dispatch.outbox import (
    AVOID_SECONDS,
    CONFIRM_BATCH,
    CONFIRM_SECONDS,
    Accepted,
    Outbox,
    Refused,
)
from jetmap.dispatch.sources import RawItems
from jetmap.nats.memory import MemoryBroker
from jetmap.settings import Settings
from jetmap.wire import pool_streams, subjects
from jetmap.wire.messages import (
    PART_BYTES,
    Chunk,
    Confirmation,
    FunctionRef,
    Place,
    Region,
    Withdraw,
)
from jetmap.wire.protocol import PROTOCOL
from jetmap.wire.scattered import LEAST, scattered
from jetmap.wire.seals import Sealer, is_sealed, new_key
from virtual_time import run as in_virtual_time

_chunks = msgspec.msgpack.Decoder(list[Chunk]).decode


class Desk(Parts):
    """An outbox on a broker in memory, and its broker's answers."""

    def __init__(self, *, max_payload: int = 1 << 20) -> None:
        super().__init__(cores=4)
        self.broker = MemoryBroker(max_payload=max_payload)
        self.connection = self.broker.connect()
        self.settings = Settings()
        self.background = Background("test")
        self.outbox = Outbox(
            self.connection, self.settings, Cutting(), "inbox", self.background, None
        )
        self.events: list[Accepted | Refused] = []
        self.sent: list[tuple[str, bytes]] = []

    async def start(self, *, stream: bool = True) -> None:
        if stream:
            await self.outbox.renew_stream()
            await self.connection.subscribe("jetmap.>", self._on_sent)
        await self.connection.subscribe("inbox.ack.*", self._on_ack)
        await self.connection.subscribe("agent.>", self._on_sent)

    async def _on_ack(self, message: object) -> None:
        self.events.append(self.outbox.on_ack(message.subject, message.data))  # type: ignore[attr-defined]

    async def _on_sent(self, message: object) -> None:
        self.sent.append((message.subject, message.data))  # type: ignore[attr-defined]

    async def settle(self) -> None:
        await asyncio.sleep(0.01)
        await self.connection.settle()

    @property
    def pool(self) -> str:
        return self.settings.broker.pool


def test_a_chunk_carries_its_map_and_its_items_and_is_accepted() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        run = desk.open(1, kwargs=b"{}", item_timeout=3.0)
        [(_, flight)] = desk.send()
        assert await desk.outbox.publish([(run, flight)]) is None
        await desk.settle()
        assert desk.events == [Accepted([(run.id, flight.number)])]
        [(subject, data)] = desk.sent
        assert subject == flight.subject == subjects.work(desk.pool, "offer", "express", run.id, 1)
        [chunk] = _chunks(data)
        assert (chunk.map, chunk.number, chunk.attempt) == (run.id, 1, 1)
        assert (chunk.start, chunk.count, chunk.items) == (0, 1, b"[0]")
        assert (chunk.kwargs, chunk.timeout, chunk.inbox) == (b"{}", 3.0, "inbox")
        assert chunk.protocol == PROTOCOL

    in_virtual_time(scenario())


def test_chunks_that_share_a_message_share_it_again() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        for _ in range(3):
            desk.open(1)
        parcel = desk.send()
        await desk.outbox.publish(parcel)
        assert len({flight.subject for _, flight in parcel}) == 1
        # A message of several maps is not purged with one of them.
        assert all(run.id not in flight.subject.split(".") for run, flight in parcel)
        del parcel[0][0].ledger.flights[parcel[0][1].number]
        assert await desk.outbox.publish_again(parcel) == []
        await desk.settle()
        counts = [len(_chunks(data)) for _, data in desk.sent]
        assert counts == [3, 2]

    in_virtual_time(scenario())


def test_a_chunk_that_is_still_there_is_accepted_again() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        desk.open(1)
        sent = desk.send()
        for _ in range(2):
            await desk.outbox.publish(sent)
            sent[0][1].attempt += 1
        await desk.settle()
        assert [type(event) for event in desk.events] == [Accepted, Accepted]

    in_virtual_time(scenario())


def test_without_its_stream_chunks_are_refused_with_those_that_did_not_ask() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start(stream=False)
        for _ in range(3):
            desk.open(1)
        sent = desk.send()
        keys = [(run.id, flight.number) for run, flight in sent]
        await desk.outbox.publish(sent[:1])
        await desk.outbox.publish(sent[1:2])  # Does not ask.
        await desk.settle()
        assert desk.events == [Refused(keys[:2], stream_is_gone=True)]
        await desk.outbox.renew_stream()
        await desk.outbox.publish(sent[2:])
        await desk.settle()
        assert desk.events[1:] == [Accepted(keys[2:])]

    in_virtual_time(scenario())


def test_a_full_stream_refuses_but_is_there() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        run = desk.open(1)
        [(_, flight)] = desk.send()
        await desk.outbox.publish([(run, flight)])
        await desk.settle()
        full = b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}'
        await asyncio.sleep(EVERY)
        await desk.outbox.publish([(run, flight)])
        event = desk.outbox.on_ack("inbox.ack.2", full)
        assert event == Refused([(run.id, flight.number)], stream_is_gone=False)

    in_virtual_time(scenario())


def test_a_chunk_over_the_brokers_limit_comes_back_with_the_reason() -> None:
    async def scenario() -> None:
        desk = Desk(max_payload=100)
        await desk.start()
        desk.open(1, kwargs=b"0" * 200)
        sent = desk.send()
        event = await desk.outbox.publish(sent)
        assert event is not None and event.chunks == sent and "limit of 100" in event.message
        assert await desk.outbox.publish_again(sent) == [event]

    in_virtual_time(scenario())


@pytest.mark.parametrize("cut", [False, True])
def test_a_withdrawn_map_is_called_back_and_its_queue_is_empty(cut: bool) -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        run = desk.open(1)
        await desk.outbox.publish(desk.send())
        await desk.settle()
        if cut:
            desk.connection.lose()
            await desk.outbox.withdraw(run)  # Agents learn it from their claims.
            return
        await desk.outbox.withdraw(run)
        await desk.settle()
        sent = dict(desk.sent)
        called = msgspec.msgpack.decode(sent[subjects.control(desk.pool)], type=Withdraw)
        assert called.map == run.id
        stream = subjects.stream(desk.pool)
        info = await desk.connection.api(f"STREAM.INFO.{stream}")
        assert info["state"]["messages"] == 0

    in_virtual_time(scenario())


def test_the_chunks_of_a_shard_without_a_server_move_to_another() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start(stream=False)
        run = desk.open(1)
        [(_, flight)] = desk.send()
        flight.offer = subjects.sharded("offer", 2)
        for _ in range(2):
            await desk.outbox.publish([(run, flight)])
            await desk.settle()
            assert desk.events[-1] == Refused([(run.id, flight.number)], stream_is_gone=True)
        lost = subjects.queue_of(flight.subject)
        assert run.queues == {lost} and subjects.is_shard(lost)
        desk.outbox.avoid(flight)
        [other] = set(subjects.queues(desk.pool, flight.offer)) - {lost}
        await pool_streams.ensure_stream(desk.connection, other)
        await desk.outbox.publish([(run, flight)])
        await desk.settle()
        assert subjects.queue_of(flight.subject) == other and run.queues == {lost, other}
        assert desk.events[-1] == Accepted([(run.id, flight.number)])
        await desk.outbox.withdraw(run)
        info = await desk.connection.api(f"STREAM.INFO.{subjects.stream(other)}")
        assert info["state"]["messages"] == 0
        await asyncio.sleep(AVOID_SECONDS)
        flight.subject = ""
        await desk.outbox.publish([(run, flight)])
        assert subjects.queue_of(flight.subject) == lost, "its server may be back"

    in_virtual_time(scenario())


def test_confirmations_are_gathered_by_number_and_by_time() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        for token in range(CONFIRM_BATCH + 1):
            await desk.outbox.confirm("agent.a", token)
        await desk.outbox.confirm("agent.b", 7)
        await desk.settle()
        assert [subject for subject, _ in desk.sent] == ["agent.a"]
        await asyncio.sleep(2 * CONFIRM_SECONDS)
        decoded = [
            (subject, msgspec.msgpack.decode(data, type=Confirmation).tokens)
            for subject, data in desk.sent
        ]
        assert decoded == [
            ("agent.a", list(range(CONFIRM_BATCH))),
            ("agent.a", [CONFIRM_BATCH]),
            ("agent.b", [7]),
        ]
        desk.outbox.close()
        assert not len(desk.background)

    in_virtual_time(scenario())


@pytest.mark.parametrize("fetched", [b"1" * 2 * PART_BYTES, b"2" * 2 * PART_BYTES])
def test_a_seal_covers_items_that_travel_in_parts(fetched: bytes) -> None:
    """Anyone who hears of the request may answer it, with other items for this user's function."""

    async def scenario() -> None:
        desk, key = Desk(), new_key()
        await desk.start()
        outbox = Outbox(
            desk.connection, desk.settings, Cutting(), "inbox", desk.background, Sealer(key)
        )
        ref = FunctionRef("module", "f")
        run = desk.open(RawItems([b"1" * 2 * PART_BYTES], "json"), ref=ref)
        [(_, flight)] = desk.send()
        await outbox.publish([(run, flight)])
        await desk.settle()
        [chunk] = _chunks(desk.sent[-1][1])
        assert chunk.items == b"" and chunk.at == Place("inbox", 2 * PART_BYTES + 2)
        # As the worker puts them together.
        chunk.items, chunk.at = b"[" + fetched + b"]", None
        assert is_sealed(chunk, key) == (fetched[:1] == b"1")

    in_virtual_time(scenario())


@pytest.mark.parametrize("way", ["inline", "region", "parts", "sealed"])
def test_scattered_items_are_joined_unless_they_are_in_a_region(way: str) -> None:
    """A seal is over the items wherever they are, so they are joined for it."""

    async def scenario() -> None:
        desk, key = Desk(), new_key()
        await desk.start()
        outbox, run = desk.outbox, desk.open(1)
        [(_, flight)] = desk.send()
        size = 2 * PART_BYTES if way != "inline" else 2 * LEAST
        values = [b"x" * size, b"y"]
        items = scattered(values)
        assert items is not None
        flight.piece = msgspec.structs.replace(flight.piece, items=items)
        region = Region(4096, len(items), 1)
        if way == "sealed":
            sealer = Sealer(key)
            outbox = Outbox(
                desk.connection, desk.settings, Cutting(), "inbox", desk.background, sealer
            )
            run.spec = msgspec.structs.replace(run.spec, ref=FunctionRef("module", "f"))
        if way in ("region", "sealed"):
            flight.region = region
        assert await outbox.publish([(run, flight)]) is None
        await desk.settle()
        [chunk] = _chunks(desk.sent[-1][1])
        if way == "inline":
            assert chunk.items == msgspec.msgpack.encode(values) and chunk.at is None
            return
        where = None if way == "parts" else region
        assert chunk.items == b"" and chunk.at == Place("inbox", len(items), where)
        assert (flight.piece.items is items) == (way != "sealed"), "only a seal needs them joined"
        if way == "sealed":
            chunk.items, chunk.at = msgspec.msgpack.encode(values), None
            assert is_sealed(chunk, key)

    in_virtual_time(scenario())
