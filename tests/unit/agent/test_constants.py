"""Constants on a host: fetched once, given to each worker once, dropped when nobody needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jetmap.agent import constants as module
from jetmap.agent.constants import HostConstants
from jetmap.agent.holdings import HeldChunk
from jetmap.agent.parts import Transfers
from jetmap.dispatch.constants import KeptConstants
from jetmap.nats.broker import Message
from jetmap.nats.memory import MemoryBroker
from jetmap.wire import frames
from jetmap.wire.constants import Constant, Given, digest_of
from jetmap.wire.memory_files import MemoryFile
from jetmap.wire.messages import ChunkHead, PartRequest
from jetmap.wire.timing import BEAT, SILENCE
from virtual_time import run

_request = msgspec.msgpack.Decoder(PartRequest).decode
_given = msgspec.msgpack.Decoder(Given).decode
CONTENT = bytes(range(256)) * 8_000  # Four parts.


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time would jump while a thread works."""

    async def to_thread(f: Callable[..., Any], *args: Any) -> Any:
        return f(*args)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)


class FakeWorker:
    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes]] = []

    def send(self, kind: bytes, payload: bytes) -> None:
        self.sent.append((kind, payload))

    @property
    def given(self) -> list[Given]:
        return [_given(payload) for kind, payload in self.sent if kind == frames.GIVEN]


class Caller:
    """A dispatcher with constants."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.inbox = f"_INBOX.{name}"
        self.connection = bench.broker.connect()
        self.kept = KeptConstants(self.connection, self.inbox)
        self.parts = 0
        self.changes = b""  # What its parts hold instead.

    async def put(self, content: bytes = CONTENT) -> Constant:
        await self.connection.subscribe(f"{self.inbox}.part", self._on_request)
        file = MemoryFile.create(len(content))
        file.write(0, content)
        return await self.kept.add(digest_of(file.view()), file)

    async def _on_request(self, message: Message) -> None:
        self.parts += 1
        part = self.kept.part(_request(message.data))
        await self.connection.publish(message.reply, self.changes[: len(part)] or part)

    async def die(self) -> None:
        await self.connection.close()

    def chunk(self, *constants: Constant, number: int = 1) -> HeldChunk:
        head = ChunkHead("m", number, 1, "f", "json", 0, 1, self.inbox, None, 0.0)
        held = HeldChunk(head, [], b"", 0, 0, None)  # type: ignore[arg-type]
        held.constants = list(constants)
        return held


class Bench:
    """An agent's constants."""

    def __init__(self, *, far: bool = True) -> None:
        self.broker = MemoryBroker()
        connection = self.broker.connect()
        self.parts = Transfers(connection, "a1", "_INBOX.a1")
        self.constants = HostConstants(connection, "host1", "_INBOX.a1", self.parts)
        if far:
            self.constants._machine = "another"

    async def start(self) -> None:
        await self.parts.start()

    async def beats(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(BEAT)
            await self.constants.beat(loop.time())

    def give(self, held: HeldChunk, worker: FakeWorker) -> Any:
        self.constants.give(worker, held)
        return worker.given


async def started(*, far: bool = True) -> tuple[Bench, Caller, Constant]:
    bench = Bench(far=far)
    await bench.start()
    caller = Caller(bench, "d1")
    return bench, caller, await caller.put()


@pytest.mark.parametrize("far", [True, False])
def test_a_constant_is_fetched_once_for_all_chunks_and_workers(far: bool) -> None:
    async def test() -> None:
        bench, caller, constant = await started(far=far)
        chunks = [caller.chunk(constant, number=n) for n in range(4)]
        assert not bench.constants.are_here(chunks[0])
        assert await asyncio.gather(*map(bench.constants.fetch, chunks)) == [True] * 4
        assert caller.parts == (4 if far else 0), "on one host nothing is copied"
        assert all(map(bench.constants.are_here, chunks))
        one, two = FakeWorker(), FakeWorker()
        bench.give(chunks[0], one)
        (given,) = bench.give(chunks[1], one)
        assert bench.give(chunks[2], two) == [given] and given.place is not None
        assert bytes(MemoryFile.open(given.place, given.size).view()) == CONTENT
        await bench.constants.close()
        assert not len(bench.constants)

    run(test())


def test_a_constant_that_its_caller_does_not_need_is_dropped_everywhere() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        held, worker = caller.chunk(constant), FakeWorker()
        await bench.constants.fetch(held)
        bench.give(held, worker)
        await bench.beats(60)
        assert len(bench.constants) == 1, "it is asked for, and still needed"
        caller.kept.release([constant.digest])
        await asyncio.sleep(0.1)
        assert not len(bench.constants)
        assert worker.sent[-1] == (frames.DROPPED, constant.digest.encode())
        assert not await bench.constants.fetch(held), "the chunk is not wanted, either"
        (_, gone) = bench.give(held, worker)
        assert gone.place is None and "host1 does not have it any more" in gone.refusal

    run(test())


def test_a_lost_notice_is_made_up_for_by_the_next_beat() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        await bench.constants.fetch(caller.chunk(constant))
        caller.kept._kept[constant.digest].agents.clear()
        caller.kept.release([constant.digest])
        assert len(bench.constants) == 1
        await bench.beats(BEAT)
        await asyncio.sleep(0.1)
        assert not len(bench.constants)

    run(test())


def test_the_constants_of_a_dead_caller_are_dropped_unless_another_needs_them() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        other = Caller(bench, "d2")
        mine = await other.put()
        only = await caller.put(b"only its own")
        for held in (caller.chunk(constant), other.chunk(mine), caller.chunk(only)):
            assert await bench.constants.fetch(held)
        assert mine == constant and len(bench.constants) == 2
        await caller.die()
        await bench.beats(SILENCE + 2 * BEAT)
        assert len(bench.constants) == 1 and bench.constants.are_here(other.chunk(mine))
        await other.die()
        await bench.beats(SILENCE + 2 * BEAT)
        assert not len(bench.constants)

    run(test())


def test_a_frozen_agent_does_not_take_its_callers_for_dead() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        await bench.constants.fetch(caller.chunk(constant))
        await bench.beats(10)
        await bench.constants.beat(asyncio.get_running_loop().time() + 3_600)
        assert len(bench.constants) == 1

    run(test())


def test_fetching_ends_when_no_chunk_waits_for_it() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        await caller.die()
        held = caller.chunk(constant)
        fetching = asyncio.create_task(bench.constants.fetch(held))
        await asyncio.sleep(30)
        assert not fetching.done()
        held.unwanted = True
        assert not await fetching and not bench.constants._fetching

    run(test())


def test_a_chunk_of_another_caller_fetches_from_that_one() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        other = Caller(bench, "d2")
        await other.put()
        caller.kept.release([constant.digest])
        chunks = [caller.chunk(constant), other.chunk(constant)]
        assert await asyncio.gather(*map(bench.constants.fetch, chunks)) == [False, True]

    run(test())


def test_a_chunk_of_another_caller_does_not_wait_for_a_dead_one() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        other = Caller(bench, "d2")
        await other.put()
        await caller.die()
        chunks = [caller.chunk(constant), other.chunk(constant)]
        fetching = asyncio.gather(*map(bench.constants.fetch, chunks))
        await asyncio.sleep(SILENCE)
        chunks[0].unwanted = True  # Its caller answers no claims.
        assert await fetching == [False, True]

    run(test())


def test_a_chunk_of_another_caller_is_not_refused_for_the_bytes_of_the_first() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        other = Caller(bench, "d2")
        await other.put()
        caller.changes = bytes(len(CONTENT))
        chunks = [caller.chunk(constant), other.chunk(constant)]
        assert await asyncio.gather(*map(bench.constants.fetch, chunks)) == [True, True]
        assert [bool(held.refusal) for held in chunks] == [True, False]
        assert len(bench.constants) == 1

    run(test())


def test_a_constant_that_was_here_is_kept_for_a_later_caller_too() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        assert await bench.constants.fetch(caller.chunk(constant))
        other = Caller(bench, "d2")
        held = other.chunk(await other.put())
        bench.constants.need(held)
        assert bench.constants.are_here(held)
        caller.kept.release([constant.digest])
        await bench.beats(2 * BEAT)
        (given,) = bench.give(held, FakeWorker())
        assert given.place is not None, given.refusal
        other.kept.release([constant.digest])
        await bench.beats(2 * BEAT)
        assert not len(bench.constants)

    run(test())


def test_bytes_that_do_not_fit_their_digest_are_refused() -> None:
    async def test() -> None:
        bench, caller, constant = await started()
        caller.changes = bytes(len(CONTENT))
        held, worker = caller.chunk(constant), FakeWorker()
        assert await bench.constants.fetch(held) and not len(bench.constants)
        assert bench.constants.are_here(held), "the worker says so for each item"
        (given,) = bench.give(held, worker)
        assert "not those of its digest" in given.refusal and given.place is None

    run(test())


def test_a_host_without_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(size: int) -> MemoryFile:
        raise OSError(28, "No space left on device")

    async def test() -> None:
        bench, caller, constant = await started()
        monkeypatch.setattr(module.MemoryFile, "create", create)
        held = caller.chunk(constant)
        assert await bench.constants.fetch(held)
        (given,) = bench.give(held, FakeWorker())
        assert "host host1 has no room for its 2,048,000 bytes" in given.refusal

    run(test())
