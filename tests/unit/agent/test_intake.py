"""The pull loop on the memory broker: chunks for idle cores only, whatever is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jetmap.agent.intake import Delivered, Intake
from jetmap.errors import BrokerUnreachable
from jetmap.nats.memory import MemoryBroker, MemoryConnection
from jetmap.settings import Settings
from jetmap.wire import pool_streams, subjects
from jetmap.wire.timing import PARK_SECONDS
from virtual_time import run


class Bench:
    """An intake with idle cores, on a broker with the streams of one offer."""

    def __init__(self, *, takes_all: bool = False) -> None:
        self.lost: list[str] = []  # Beginnings of subjects whose messages are lost.
        self.pulls = 0
        self.broker = MemoryBroker(network=self._network)
        self.connection: MemoryConnection = self.broker.connect("agent")
        self.taken: list[Delivered] = []
        self.renewed = 0
        self.fails = 0
        self.intake = Intake(
            *(self.connection, "p", "inbox.pull", self._take, self._renew), takes_all=takes_all
        )

    def _network(self, subject: str, data: bytes) -> Sequence[float]:
        self.pulls += subject.startswith("$JS.API.CONSUMER.MSG.NEXT")
        return () if any(subject.startswith(lost) for lost in self.lost) else (0.0,)

    async def _take(self, delivered: Delivered) -> None:
        self.taken.append(delivered)

    async def _renew(self) -> None:
        self.renewed += 1
        if self.renewed <= self.fails:
            raise BrokerUnreachable("not yet")
        self.epoch = await pool_streams.ensure_stream(self.connection, "p", Settings().stream)
        await pool_streams.ensure_consumers(self.connection, "p", "o", self.epoch)
        await self.intake.serve("o", {"p": self.epoch}, self.epoch)

    async def start(self) -> None:
        await self.intake.start()
        await self._renew()

    async def send(self, number: int, lane: str = "main") -> None:
        subject = subjects.work("p", "o", lane, "m", number)
        await self.connection.publish(subject, b"%d" % number)
        await asyncio.sleep(0.01)

    @property
    def numbers(self) -> list[int]:
        return [int(delivered.data) for delivered in self.taken]

    async def close(self) -> None:
        await self.intake.stop()
        await self.intake.close()
        await self.connection.close()


def test_each_idle_core_takes_one_chunk() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.start()
        for number in range(1, 4):
            await bench.send(number)
        assert bench.taken == [], "no core is idle"
        for idle in range(1, 4):
            await bench.intake.on_core_freed()
            await asyncio.sleep(0.01)
            assert bench.numbers == list(range(1, idle + 1))
        assert [delivered.pending for delivered in bench.taken] == [2, 1, 0]
        await bench.close()

    run(scenario())


def test_a_waiting_core_gets_the_next_chunk_of_either_lane() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.start()
        await bench.intake.on_core_freed()
        await asyncio.sleep(3 * PARK_SECONDS)  # Its pulls end and are sent again.
        await bench.send(1, "express")
        await bench.intake.on_core_freed()
        await bench.send(2, "main")
        assert bench.numbers == [1, 2]
        assert [delivered.lane for delivered in bench.taken] == ["express", "main"]
        await bench.close()

    run(scenario())


def test_an_only_agent_takes_all_chunks_by_one_pull_at_each_lane() -> None:
    async def scenario() -> None:
        bench = Bench(takes_all=True)
        await bench.start()
        await bench.send(1)
        assert bench.taken == [] and not bench.pulls, "no core is ready"
        await bench.intake.on_core_freed()
        for number in range(2, 50):
            await bench.send(number, "express" if number % 2 else "main")
            await bench.intake.on_core_freed()
        assert bench.numbers == list(range(1, 50)) and bench.pulls == 2
        await asyncio.sleep(3 * PARK_SECONDS)  # Its pulls end and are sent again.
        await bench.send(50)
        assert bench.numbers[-1] == 50
        bench.lost = ["$JS.API.CONSUMER.MSG.NEXT"]
        await asyncio.sleep(PARK_SECONDS + 1)
        bench.lost = []
        await bench.send(51)
        assert bench.numbers[-1] == 50, "the pulls were lost"
        await asyncio.sleep(PARK_SECONDS + 2)
        await bench.intake.check(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        assert bench.numbers[-1] == 51
        await bench.close()

    run(scenario())


def test_a_chunk_for_a_core_that_is_gone_is_handed_back() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.start()
        await bench.intake.on_core_freed()
        await asyncio.sleep(1)
        bench.intake.on_core_lost()
        await bench.send(1)
        assert bench.taken == []
        await bench.intake.on_core_freed()
        await asyncio.sleep(1)
        assert bench.numbers == [1] and bench.taken[0].deliveries == 2
        await bench.close()

    run(scenario())


def test_pulls_that_are_lost_are_sent_again() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.start()
        bench.lost = ["$JS.API.CONSUMER.MSG.NEXT"]
        await bench.intake.on_core_freed()
        await bench.send(1)
        bench.lost = []
        loop = asyncio.get_running_loop()
        for _ in range(60):
            await asyncio.sleep(1)
            await bench.intake.check(loop.time())
        assert bench.numbers == [1]
        await bench.close()

    run(scenario())


def test_a_stream_that_is_gone_is_made_anew() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.start()
        await bench.intake.on_core_freed()
        await asyncio.sleep(1)
        bench.fails = 4  # Its creation fails at first.
        await bench.connection.api(f"STREAM.DELETE.{subjects.stream('p')}")
        loop = asyncio.get_running_loop()
        for _ in range(60):
            await asyncio.sleep(1)
            await bench.intake.check(loop.time())
        assert bench.renewed >= 5
        await bench.send(1)
        assert bench.numbers == [1]
        await bench.close()

    run(scenario())


def test_a_new_connection_pulls_again() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.start()
        await bench.intake.on_core_freed()
        await asyncio.sleep(1)
        bench.connection.lose()
        await asyncio.sleep(5)
        bench.connection.restore()
        await bench.intake.on_reconnect()
        await asyncio.sleep(1)
        await bench.send(1)
        assert bench.numbers == [1]
        await bench.close()

    run(scenario())


@pytest.mark.parametrize("lane", ["main", "express"])
def test_nothing_is_taken_after_the_stop(lane: str) -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.start()
        await bench.intake.on_core_freed()
        await asyncio.sleep(1)
        await bench.intake.stop()
        await bench.send(1, lane)
        await bench.intake.on_core_freed()
        await asyncio.sleep(5)
        assert bench.taken == []
        await bench.close()

    run(scenario())


def test_a_change_of_shards_loses_no_idle_core_and_no_chunk() -> None:
    """The pulls of the earlier queues are still out; what they bring is taken, or handed back."""

    async def scenario() -> None:
        bench = Bench()
        await bench.start()
        for _ in range(2):
            await bench.intake.on_core_freed()
        for count in (3, 1, 2):
            offer = subjects.sharded("o", count)
            epochs = {}
            for queue in subjects.queues("p", offer):
                epochs[queue] = await pool_streams.ensure_stream(bench.connection, queue)
                await pool_streams.ensure_consumers(bench.connection, queue, offer, epochs[queue])
            await bench.intake.serve(offer, epochs)
            await asyncio.sleep(1)
            assert bench.intake.idle == 2
        await bench.send(1)
        for number, queue in enumerate(subjects.queues("p", "o=2"), 2):
            subject = subjects.work(queue, "o=2", "main", "m", number)
            await bench.connection.publish(subject, b"%d" % number)
        await asyncio.sleep(1)
        assert bench.intake.idle == 0 and len(bench.taken) == 2
        await bench.intake.on_core_freed()
        await asyncio.sleep(1)
        assert sorted(bench.numbers) == [1, 2, 3]
        await bench.close()

    run(scenario())


def test_a_shard_that_is_gone_is_served_again_and_the_others_go_on() -> None:
    async def scenario() -> None:
        bench = Bench()
        away = True

        async def renew() -> None:
            for queue in subjects.queues("p", "o=2"):
                if queue == "p=2" and away and bench.intake.gone:
                    continue
                epochs[queue] = await pool_streams.ensure_stream(bench.connection, queue)
                await pool_streams.ensure_consumers(bench.connection, queue, "o=2", epochs[queue])
            await bench.intake.serve("o=2", epochs)
            if "p=2" not in epochs:
                raise BrokerUnreachable("its server is away")

        async def send(queue: str, number: int) -> None:
            subject = subjects.work(queue, "o=2", "main", "m", number)
            await bench.connection.publish(subject, b"%d" % number)
            await asyncio.sleep(1)

        epochs: dict[str, str] = {}
        bench.intake = Intake(bench.connection, "p", "inbox.pull", bench._take, renew)
        await bench.intake.start()
        await renew()
        await bench.intake.on_core_freed()
        await bench.connection.api(f"STREAM.DELETE.{subjects.stream('p=2')}")
        del epochs["p=2"]
        await asyncio.sleep(10)
        assert bench.intake.gone == {"p=2"}
        await send("p=1", 1)
        assert bench.numbers == [1]
        await bench.connection.publish(bench.taken[0].ack, b"+ACK")
        away = False
        await asyncio.sleep(10)
        assert not bench.intake.gone
        await bench.intake.on_core_freed()
        await send("p=2", 2)
        assert bench.numbers == [1, 2]
        await bench.close()

    run(scenario())
