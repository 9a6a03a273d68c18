"""Chunks on their way out: in order, together, again, and called back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from dispatching import Parts, presence, report_of
from jetmap.background import Background
from jetmap.dispatch.costs import Cutting
from jetmap.dispatch.flight import Flight
from jetmap.dispatch.neighbours import NeighbourAgents
from jetmap.dispatch.outbox import Outbox
from jetmap.dispatch.sender import REFUSED_SECONDS, Sender
from jetmap.dispatch.sharing import SMALL_SECONDS
from jetmap.dispatch.sources import RawItems
from jetmap.nats.broker import Message
from jetmap.nats.memory import MemoryBroker
from jetmap.settings import Settings
from jetmap.wire.messages import (
    PART_BYTES,
    SHARE_BYTES,
    Chunk,
    Control,
    Hurry,
    Place,
    Region,
    Withdraw,
)
from jetmap.wire.presence import Presence
from virtual_time import run as in_virtual_time

_chunks = msgspec.msgpack.Decoder(list[Chunk]).decode
_control = msgspec.msgpack.Decoder(Control).decode


class Desk(Parts):
    """A sender on a broker in memory, and the messages that it sends."""

    def __init__(self, cores: int = 2, *, max_payload: int = 1 << 20) -> None:
        super().__init__(cores)
        self.broker = MemoryBroker(max_payload=max_payload)
        self.connection = self.broker.connect()
        self.background = Background("test")
        cutting = Cutting()
        self.outbox = Outbox(self.connection, Settings(), cutting, "inbox", self.background, None)
        self.sender = Sender(
            self.maps,
            self.scheduler,
            self.outbox,
            self.roster,
            self.stats,
            self.background,
            NeighbourAgents("inbox", 0, lambda: None),
        )
        self.messages: list[list[Chunk]] = []
        self.withdrawn: list[str] = []
        self.hurried: list[tuple[str, int]] = []  # Each map, and the messages of chunks before.

    async def start(self, *, stream: bool = True) -> None:
        if stream:
            await self.outbox.renew_stream()
        await self.connection.subscribe("inbox.ack.*", self.sender.on_ack)
        if stream:
            await self.connection.subscribe("jetmap.work.>", self._on_work)
            await self.connection.subscribe("jetmap.control.>", self._on_control)

    async def _on_work(self, message: Message) -> None:
        if message.data:
            self.messages.append(_chunks(message.data))

    async def _on_control(self, message: Message) -> None:
        control = _control(message.data)
        if isinstance(control, Hurry):
            self.hurried.append((control.map, len(self.messages)))
        elif isinstance(control, Withdraw):
            self.withdrawn.append(control.map)

    async def settle(self, seconds: float = 0.001) -> None:
        await asyncio.sleep(seconds)
        await self.connection.settle()

    def learn(self, seconds: float) -> None:
        self.scheduler.cost("f").learn(1000, 1000 * seconds, 0)


def test_the_only_small_map_is_sent_at_once_and_several_share_a_message() -> None:
    async def scenario() -> None:
        desk = Desk(cores=1)
        await desk.start()
        desk.learn(SMALL_SECONDS / 100)
        first = desk.open(1)
        await desk.sender.pump()
        assert len(first.ledger.flights) == 1 and not desk.scheduler.sharing.gathered
        others = [desk.open(1) for _ in range(3)]
        await desk.sender.pump()
        await desk.settle()
        assert [len(chunks) for chunks in desk.messages] == [1]
        [flight] = first.ledger.flights.values()
        desk.maps.accept(report_of(first, flight), -1, 0.0)
        await desk.sender.pump()
        await desk.settle()
        assert [len(chunks) for chunks in desk.messages] == [1, 3]
        assert all(run.ledger.flights for run in others)

    in_virtual_time(scenario())


def test_a_newcomers_chunks_are_sent_before_long_ones_are_hurried() -> None:
    """A core that comes free would take another long chunk if the newcomer's came later."""

    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        desk.scheduler.cutting = Cutting().fitted(2, 0.0, hurries=True)
        run = desk.open(10_000, whole=True)
        for _ in range(8):
            run.cost.learn(30, 0.045, 0)
            run.pace.learn(30, 0.045)
        run.pace.is_sure = True
        run.express_chunks, run.express_seconds = 1, 1.0  # Its first chunks are out of the way.
        await desk.sender.pump()
        await desk.settle()
        sent = len(desk.messages)
        assert sent and not desk.hurried
        assert any(flight.piece.is_long for flight in run.ledger.flights.values())
        desk.open(1)
        await desk.sender.pump()
        await desk.settle()
        assert desk.hurried == [(run.id, sent + 1)] and len(desk.messages) == sent + 1

    in_virtual_time(scenario())


@pytest.mark.parametrize("waits", [False, True])
def test_what_can_be_sent_at_once_is_sent_in_this_turn(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        if waits:
            publish = desk.connection.publish

            async def publish_later(*message: Any) -> None:
                await asyncio.sleep(0.1)
                await publish(*message)

            monkeypatch.setattr(desk.connection, "publish", publish_later)
        run = desk.open(1)
        desk.sender.pump_now()
        assert len(run.ledger.flights) == 1 and bool(len(desk.background)) == waits
        await desk.settle(1.0)
        assert [len(chunks) for chunks in desk.messages] == [1]

    in_virtual_time(scenario())


def test_small_maps_do_not_wait_for_a_parcel_that_takes_too_long() -> None:
    async def scenario() -> None:
        desk = Desk(cores=1)
        await desk.start()
        desk.learn(SMALL_SECONDS / 100)
        desk.open(1)
        await desk.sender.pump()
        desk.open(1)
        await desk.sender.pump()
        await desk.settle()
        assert len(desk.messages) == 1
        await desk.settle(2 * desk.scheduler.cutting.seconds)
        assert len(desk.messages) == 2

    in_virtual_time(scenario())


def test_chunks_without_an_offer_are_not_sent() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        desk.roster.on_presence(presence(gone=True), 0.0)
        run = desk.open(1)
        await desk.sender.pump()
        await desk.settle()
        [flight] = run.ledger.flights.values()
        assert not desk.messages and not flight.offer

    in_virtual_time(scenario())


def test_refused_chunks_are_sent_again_soon_and_fewer_at_once() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start(stream=False)
        run = desk.open(2)
        window = desk.scheduler.window
        await desk.sender.pump()
        size = window.size
        await desk.settle()
        assert window.size < size
        assert not any(flight.confirmed for flight in run.ledger.flights.values())
        await desk.settle(2 * REFUSED_SECONDS)  # The stream is made anew meanwhile.
        assert all(flight.confirmed for flight in run.ledger.flights.values())
        assert desk.stats.chunks_again["refused"] == len(run.ledger.flights)

    in_virtual_time(scenario())


def test_chunks_that_ended_meanwhile_are_not_sent_again() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start(stream=False)
        run = desk.open(1)
        await desk.sender.pump()
        await desk.settle()
        [flight] = run.ledger.flights.values()
        desk.maps.accept(report_of(run, flight), -1, 0.0)
        await desk.settle(2 * REFUSED_SECONDS)
        assert desk.stats.chunks_again["refused"] == 0

    in_virtual_time(scenario())


def test_sending_again_is_the_next_attempt() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        run = desk.open(1)
        await desk.sender.pump()
        await desk.sender.send_again([(run, flight) for flight in run.ledger.flights.values()])
        await desk.settle()
        assert [chunk.attempt for chunks in desk.messages for chunk in chunks] == [1, 2]

    in_virtual_time(scenario())


def test_what_the_broker_had_lost_is_noted_when_it_is_sent_again() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        run = desk.open(1)
        await desk.sender.pump()
        await desk.settle()
        [flight] = run.ledger.flights.values()
        assert flight.confirmed and not desk.maps.lost
        await desk.sender.send_again([(run, flight)])
        await desk.settle()
        assert not desk.maps.lost
        stream = desk.broker.jetstream.streams["JETMAP_WORK_default"]
        stream.purge(">", None, 0)
        await desk.sender.send_again([(run, flight)])
        await desk.settle()
        assert desk.maps.lost == [flight]

    in_virtual_time(scenario())


def test_maps_that_end_early_are_called_back() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        run = desk.open(1)
        await desk.sender.pump()
        desk.maps.end(run, "withdrawn")
        await desk.sender.pump()
        await desk.background.wait("withdraw", 10)
        await desk.settle()
        assert desk.withdrawn == [run.id]

    in_virtual_time(scenario())


def test_a_large_item_stays_here_and_its_chunk_says_so() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        items = [b"1" * PART_BYTES, b"2" * 10]
        run = desk.open(RawItems(items, "json"))
        await desk.sender.pump()
        await desk.settle()
        large, small = (chunk for message in desk.messages for chunk in message)
        assert large.at == Place("inbox", PART_BYTES + 2) and large.items == b""
        assert small.at is None and small.items == b"[2222222222]"
        assert not run.ended

    in_virtual_time(scenario())


def test_items_go_to_shared_memory_while_there_is_room_and_every_agent_reads_it() -> None:
    class Shared(NeighbourAgents):
        regions = [Region(4096, 40_002, 7)]

        def are_all(self, agents: Iterable[Presence]) -> bool:
            return len(list(agents)) == 1

        def put(self, flight: Flight) -> None:
            flight.region = self.regions.pop() if self.regions else None

        def free(self, flight: Flight) -> None:
            assert flight.region is not None
            self.regions.append(flight.region)
            flight.region = None

    async def scenario() -> None:
        desk = Desk(cores=4)
        desk.sender._neighbours = desk.scheduler.shared = shared = Shared("inbox", 0, lambda: None)
        await desk.start()
        run = desk.open(RawItems([b"1" * 40_000, b"2" * 40_000, b"3" * PART_BYTES], "json"))
        run.large = SHARE_BYTES
        await desk.sender.pump()
        await desk.settle()
        first, second, third = (chunk for message in desk.messages for chunk in message)
        assert first.items == b"" and first.at == Place("inbox", 40_002, Region(4096, 40_002, 7))
        assert second.at is None and len(second.items) == 40_002, "the memory is full"
        assert third.at == Place("inbox", PART_BYTES + 2)
        [flight, *_] = run.ledger.flights.values()
        assert desk.outbox._chunk(run, flight).at == first.at, "it is sent again"
        items, flight.piece.items = flight.piece.items, bytes(SHARE_BYTES + 1)
        assert desk.outbox._chunk(run, flight).at is None, "it has given back other items"
        flight.piece.items = items
        desk.maps.accept(report_of(run, flight), 0, 1.0)
        assert len(shared.regions) == 1 and flight.region is None
        desk.roster.on_presence(presence("far"), 0.0)
        desk.open(RawItems([b"4" * 40_000], "json")).large = SHARE_BYTES
        await desk.sender.pump()
        await desk.settle()
        [[far]] = desk.messages[3:]
        assert far.at is None and len(shared.regions) == 1

    in_virtual_time(scenario())


@pytest.mark.parametrize(("size", "fits"), [(600_000, True), (1_100_000, False)])
def test_an_older_agent_gets_what_fits_into_a_message(size: int, fits: bool) -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.roster.on_presence(presence("old", protocol=2), 0.0)
        await desk.start()
        run = desk.open(RawItems([b"1" * size], "json"))
        run.room = desk.connection.room
        await desk.sender.pump()
        await desk.settle()
        if fits:
            [[chunk]] = desk.messages
            assert chunk.at is None and len(chunk.items) == size + 2
            [flight] = run.ledger.flights.values()
            await desk.sender.send_again([(run, flight)])
            assert desk.messages[-1][0].at is None
            return
        assert not desk.messages
        [error] = (await anext(run)).errors
        assert error.kind == "unencodable" and "host host-old" in error.message
        assert "1,100,002 bytes" in error.message and "upgrade" in error.message

    in_virtual_time(scenario())


def test_a_broker_with_smaller_messages_gets_what_fits() -> None:
    async def scenario() -> None:
        desk = Desk(max_payload=100_000)
        await desk.start()
        run = desk.open(RawItems([b"1" * 300_000], "json"))
        await desk.sender.pump()
        await desk.settle()
        [[chunk]] = desk.messages
        assert chunk.at == Place("inbox", 300_002) and run.inline <= 100_000

    in_virtual_time(scenario())


def test_after_closing_nothing_is_sent() -> None:
    async def scenario() -> None:
        desk = Desk()
        await desk.start()
        desk.sender.close()
        run = desk.open(1)
        await desk.sender.pump()
        assert not run.ledger.flights

    in_virtual_time(scenario())
