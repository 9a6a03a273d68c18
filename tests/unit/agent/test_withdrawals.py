"""Chunks that nobody wants any more: they end wherever in the agent they are."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.agent.holdings import HeldChunk, Lease
from jetmap.agent.intake import NAK
from jetmap.agent.withdrawals import TERM, WITHDRAWN_KEPT
from jetmap.wire import subjects
from jetmap.wire.messages import BatchTerms, ChunkHead, Withdraw, encode
from jetmap.wire.timing import SILENCE
from lone_agent import POOL, LoneAgent
from simulated_pool import Work
from virtual_time import run


@pytest.mark.parametrize("way", ["control", "claim"])
def test_a_withdrawn_map_ends_before_its_next_item(way: str) -> None:
    work = Work(seconds=lambda item: 60.0)

    async def scenario() -> None:
        async with LoneAgent(work=work) as bench:
            await bench.caller.send(1)
            await bench.caller.until(lambda: work.runs[1])
            if way == "control":
                withdraw = encode(Withdraw("m"))
                await bench.caller.connection.publish(subjects.control(POOL), withdraw)
            else:
                bench.caller.unwanted.add(("m", 1))
            began = asyncio.get_running_loop().time()
            await bench.caller.until(bench.caller.done)
            assert asyncio.get_running_loop().time() - began < 10
            assert not bench.caller.values
            if way == "control":
                await bench.caller.send(2)  # It was on its way when the map was withdrawn.
                await bench.caller.until(bench.caller.done)
                assert not work.runs[2]

    run(scenario())


def test_what_is_withdrawn_is_in_no_batch_that_has_not_begun() -> None:
    work = Work(batch=4)

    async def scenario() -> None:
        async with LoneAgent(work=work) as bench:
            bench.caller.batch = BatchTerms(4, 2.0)
            for number in (1, 2, 3):
                await bench.caller.send(number, map=f"m{number}")
            await bench.caller.until(lambda: len(bench.agent._chunks._held) == 3)
            withdraw = encode(Withdraw("m2"))
            await bench.caller.connection.publish(subjects.control(POOL), withdraw)
            await bench.caller.until(bench.caller.done)
            assert work.calls == [[1, 3]] and bench.caller.values == {1: 2, 3: 6}

    run(scenario())


def test_the_chunks_of_a_silent_caller_are_dropped() -> None:
    work = Work(seconds=lambda item: 0.001 if item == 1 else 300.0)

    async def scenario() -> float:
        async with LoneAgent(work=work) as bench:
            await bench.caller.send(1)
            await bench.caller.send(2)
            bench.caller.answers = False
            began = asyncio.get_running_loop().time()
            await bench.caller.until(bench.caller.done)
            return asyncio.get_running_loop().time() - began

    assert run(scenario()) <= SILENCE + 5


def test_a_message_is_answered_when_its_last_chunk_is_let_go() -> None:
    async def scenario() -> None:
        async with LoneAgent() as bench:
            chunks, sent = bench.agent._chunks, []

            async def send(subject: str, answer: bytes) -> None:
                sent.append((subject, answer))

            chunks.withdrawals._send = send  # type: ignore[method-assign]
            lease, other = Lease("ack", 2), Lease("other", 1)
            for number, leases in ((1, [lease]), (2, [lease, other])):
                head = ChunkHead("m", number, 1, "f", "json", 0, 1, "i", None, 0.0)
                chunks._held.add(HeldChunk(head, leases, b"", 0, 0, chunks._reports), 0.0)
            one, two = chunks._held
            await chunks.withdrawals.release(one, NAK)
            assert not sent and list(chunks._held) == [two]
            await chunks.withdrawals.withdraw(two)
            await chunks.withdrawals.withdraw(two)
            assert sent == [("ack", TERM), ("other", TERM)] and not len(chunks._held)

    run(scenario())


def test_the_latest_withdrawn_maps_are_remembered() -> None:
    async def scenario() -> None:
        async with LoneAgent() as bench:
            withdrawals = bench.agent._chunks.withdrawals
            for number in range(WITHDRAWN_KEPT + 2):
                await withdrawals.withdraw_map(f"m{number}")
            assert len(withdrawals.maps) == WITHDRAWN_KEPT and "m1" not in withdrawals.maps

    run(scenario())
