"""Constants of a process: kept for those who need them, and shown to agents."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from jetmap.dispatch import constants as module
from jetmap.dispatch.constants import KeptConstants
from jetmap.errors import ClusterClosed
from jetmap.nats.broker import Message
from jetmap.nats.memory import MemoryBroker
from jetmap.wire.constants import NUMBER, Constant, ConstantsAnswer, ConstantsAsk, digest_of
from jetmap.wire.memory_files import MemoryFile
from jetmap.wire.messages import PartRequest, encode
from virtual_time import run

_answer = msgspec.msgpack.Decoder(ConstantsAnswer).decode


def file_with(data: bytes) -> MemoryFile:
    file = MemoryFile.create(len(data))
    file.write(0, data)
    return file


class Bench:
    """A dispatcher's constants, and an agent that asks about them."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.constants = KeptConstants(self.broker.connect(), "_INBOX.d1")
        self.agent = self.broker.connect()
        self.answers: list[ConstantsAnswer] = []

    async def start(self, *contents: bytes) -> list[str]:
        await self.agent.subscribe("_INBOX.a1.constants", self._on_answer)
        return [await self.put(content) for content in contents]

    async def put(self, content: bytes) -> str:
        file = file_with(content)
        return (await self.constants.add(digest_of(file.view()), file)).digest

    async def ask(self, *digests: str) -> ConstantsAnswer:
        ask = encode(ConstantsAsk("_INBOX.a1.constants", list(digests)))
        await self.agent.publish("_INBOX.d1.constants", ask)
        return await self.answer()

    async def answer(self) -> ConstantsAnswer:
        await asyncio.sleep(0.1)
        return self.answers.pop()

    async def _on_answer(self, message: Message) -> None:
        self.answers.append(_answer(message.data))

    def part(self, digest: str, size: int, offset: int, length: int) -> bytes:
        return bytes(self.constants.part(PartRequest(digest, NUMBER, size, offset, length)))


def test_values_that_are_put_at_the_same_time_are_answered_for_once() -> None:
    async def test() -> None:
        bench = Bench()
        await bench.start()
        one, _ = await asyncio.gather(bench.put(b"one"), bench.put(b"two"))
        await bench.ask(one)
        assert not bench.answers
        await bench.constants.close()

    run(test())


def test_an_agent_hears_where_a_constant_is_and_when_nobody_needs_it() -> None:
    async def test() -> None:
        bench = Bench()
        one, two = await bench.start(b"one", b"two")
        answer = await bench.ask(one, two, "other")
        assert answer.dispatcher == "_INBOX.d1" and answer.unwanted == ["other"]
        assert bytes(MemoryFile.open(answer.places[one], 3).view()) == b"one"
        assert set(answer.places) == {one, two}
        bench.constants.release([one])
        assert (await bench.answer()).unwanted == [one] and one not in bench.constants
        assert (await bench.ask(one)).unwanted == [one]
        await bench.constants.close()
        assert (await bench.answer()).unwanted == [two]

    run(test())


def test_equal_content_is_kept_once_until_its_last_user_ends() -> None:
    async def test() -> None:
        bench = Bench()
        first, second = await bench.start(b"same", b"same")
        assert first == second
        bench.constants.hold([first])
        bench.constants.release([first])
        bench.constants.release([first])
        assert bench.part(first, 4, 1, 2) == b"am"
        bench.constants.release([first])
        assert bench.part(first, 4, 1, 2) == b"" and first not in bench.constants
        with pytest.raises(ValueError, match="put the value again"):
            bench.constants.hold([first])
        bench.constants.release([first])  # For example, by a map that outlived the cluster.

    run(test())


def test_keyword_parameters_are_kept_a_moment_for_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_BYTES", 1_000)

    async def test() -> None:
        bench = Bench()
        small, large = await bench.start(b"small", bytes(module.LINGER_BYTES))
        bench.constants.release_later(Constant(large, module.LINGER_BYTES))
        bench.constants.release_later(Constant(small, 5))
        assert large in bench.constants, "it fits"
        second = await bench.put(b"second")
        bench.constants.release_later(Constant(second, 6))
        assert small not in bench.constants and second not in bench.constants
        await asyncio.sleep(module.LINGER_SECONDS + 1)
        assert large not in bench.constants and not bench.constants._lingering

    run(test())


def test_parts_of_another_size_are_not_given() -> None:
    async def test() -> None:
        bench = Bench()
        (digest,) = await bench.start(b"abcd")
        assert bench.part(digest, 4, 0, 4) == b"abcd" and bench.part(digest, 5, 0, 4) == b""

    run(test())


def test_nothing_is_kept_after_the_end() -> None:
    async def test() -> None:
        bench = Bench()
        await bench.start(b"one")
        await bench.constants.close()
        await bench.constants.close()
        late = file_with(b"late")
        with pytest.raises(ClusterClosed):
            await bench.constants.add("late", late)
        assert late._fd < 0, "its file is closed"

    run(test())


def test_a_forked_child_lets_go_without_a_word() -> None:
    async def test() -> None:
        bench = Bench()
        (digest,) = await bench.start(b"one")
        await bench.ask(digest)
        kept = bench.constants._kept[digest].file
        bench.constants.let_go()
        await asyncio.sleep(0.1)
        assert kept._fd < 0 and not bench.answers

    run(test())


def test_a_process_without_workers_keeps_them_too() -> None:
    async def test() -> None:
        constants = KeptConstants(None, "")
        await constants.add("d1", file_with(b"one"))
        assert bytes(constants.view("d1")) == b"one"
        await constants.close()
        assert "d1" not in constants

    run(test())
