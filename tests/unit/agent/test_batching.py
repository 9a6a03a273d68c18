"""The cores that batches wait for, begin on, and leave: the intake knows each idle one."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from hypotheses import examples
from jetmap.agent.batches import ChunkBatch, halved
from jetmap.agent.batching import Batching, shares_of
from jetmap.agent.holdings import HeldChunk
from jetmap.background import Background
from jetmap.wire.messages import ArrivedHead, BatchTerms, Chunk, FunctionRef, encode

SIZE, LINGER = 4, 0.1


class FakeSlot:
    """A core; ``batch`` is what it computes."""

    def __init__(self) -> None:
        self.batch: ChunkBatch[HeldChunk] | None = None
        self.state = ("ready", None)

    @property
    def is_idle(self) -> bool:
        return self.batch is None and self.state[0] == "ready"


class Bench:
    """An agent's cores, and an intake that counts the idle ones."""

    def __init__(self, cores: int) -> None:
        self.slots = [FakeSlot() for _ in range(cores)]
        self.idle = cores
        self.given_back: list[HeldChunk] = []
        self.begun: list[list[int]] = []
        self.number = 0
        slots: Any = self.slots
        self.batching = Batching(
            *(slots, Background("test"), self.begin, self.give_back),
            *(self.on_freed, self.on_lost),
        )

    def begin(self, slot: Any, batch: ChunkBatch[HeldChunk]) -> None:
        assert slot.is_idle
        slot.batch = batch
        self.begun.append([held.head.number for held in batch.chunks])

    async def give_back(self, chunks: list[HeldChunk]) -> None:
        self.given_back += chunks

    async def on_freed(self) -> None:
        self.idle += 1

    def on_lost(self, slot: Any) -> None:
        self.idle -= 1

    async def arrive(self, *counts: int, function: str = "f") -> list[HeldChunk]:
        """Deliver a message of chunks to a core that the intake counts as idle."""
        self.idle -= 1
        chunks = []
        for count in counts:
            self.number += 1
            chunks.append(held_chunk(self.number, count, function))
        await self.batching.add(chunks)
        return chunks

    async def end(self, slot: FakeSlot, *, dies: bool = False) -> None:
        """End the batch of a core, or its worker; then the core comes free."""
        batch, slot.batch = slot.batch, None
        assert batch is not None
        if dies and batch.items > 1:
            slot.state = ("starting", None)
            again = halved(batch, batch.chunks[0], 0, min(SIZE, batch.items)).again
            await self.batching.add_again(again)
            slot.state = ("ready", None)
        if self.batching.has_ready:
            await self.batching.on_core_freed()
        else:
            self.idle += 1

    def check(self) -> None:
        assert self.idle == sum(slot.is_idle for slot in self.slots)


def held_chunk(number: int, count: int, function: str) -> HeldChunk:
    chunk = Chunk("m", number, 1, function, "json", 0, count, "i", None, 0.0, b"[]",
                  batch=BatchTerms(SIZE, LINGER))  # fmt: skip
    data = encode(chunk)

    head = msgspec.msgpack.decode(data, type=ArrivedHead)
    held = HeldChunk(head, [], data, 0, 0, sink=None)  # type: ignore[arg-type]
    held.batch, held.shares = head.batch, shares_of(head)
    return held


def test_chunks_share_a_batch_that_begins_when_it_has_lingered() -> None:
    async def scenario() -> None:
        bench = Bench(2)
        await bench.arrive(1)
        await bench.arrive(1, 1)
        bench.check()
        assert bench.idle == 2 and not bench.begun, "both go on pulling"
        assert bench.batching.leaves_a_core
        await asyncio.sleep(2 * LINGER)
        assert bench.begun == [[1, 2, 3]]
        bench.check()
        await bench.arrive(2)
        assert not bench.batching.leaves_a_core
        await bench.arrive(2)
        assert bench.begun == [[1, 2, 3], [4, 5]], "it is full"
        bench.check()
        assert not bench.given_back

    virtual_time.run(scenario())


def test_what_has_no_core_any_more_is_given_back() -> None:
    async def scenario() -> None:
        bench = Bench(1)
        await bench.arrive(1)
        other = await bench.arrive(3, function="g")
        await bench.batching.make_way()
        assert bench.begun == [[1]] and bench.given_back == other
        bench.check()
        await bench.end(bench.slots[0])
        bench.check()

    virtual_time.run(scenario())


def test_a_batch_that_cost_its_worker_waits_for_the_next() -> None:
    async def scenario() -> None:
        bench = Bench(1)
        (one, two, _) = await bench.arrive(1, 1, 2)
        await bench.end(bench.slots[0], dies=True)
        (again,) = [slot.batch for slot in bench.slots if slot.batch]
        assert again.runs == [2, 2] and bench.begun == [[1, 2, 3], [1, 2, 3]]
        bench.check()
        slot = bench.slots[0]
        slot.batch, slot.state = None, ("failed", None)
        await bench.batching.add_again([again])
        bench.batching.drop(one)
        assert (again.runs, again.chunks[0]) == ([1, 2], two)
        await bench.batching.check()
        assert bench.given_back == again.chunks, "no worker can start"

    virtual_time.run(scenario())


@given(
    st.integers(1, 3),
    st.lists(
        st.one_of(
            st.tuples(st.just("arrives"), st.integers(1, 6)),
            st.tuples(st.sampled_from(["ends", "dies", "leaves"]), st.integers(0, 2)),
            st.tuples(st.just("waits"), st.just(0)),
        ),
        max_size=40,
    ),
)
@examples(100)
def test_the_intake_counts_the_idle_cores(cores: int, events: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        bench = Bench(cores)
        here: list[HeldChunk] = []
        for event, which in events:
            slot = bench.slots[which % cores]
            if event == "arrives" and bench.idle:
                here += await bench.arrive(which, function="fg"[which % 2])
            elif event == "waits":
                await asyncio.sleep(LINGER)
            elif event == "leaves" and here:
                bench.batching.drop(here.pop(which % len(here)))
            elif event in ("ends", "dies") and slot.batch is not None:
                await bench.end(slot, dies=event == "dies")
            bench.check()
        await bench.batching.clear()
        await asyncio.sleep(LINGER)
        bench.check()

    virtual_time.run(scenario())


def test_only_calls_that_are_alike_are_shared() -> None:
    def key(**fields: Any) -> Any:
        base: dict[str, Any] = {"function": "f", "format": "json", "timeout": None}
        base |= fields
        chunk = Chunk(map="m", number=1, attempt=1, start=0, count=1, inbox="i", budget=0.0,
                      items=b"[1]", protocol=4, **base)  # fmt: skip

        return shares_of(msgspec.msgpack.decode(encode(chunk), type=ArrivedHead))

    assert key() == key(format="msgpack"), "items are decoded before they meet"
    assert key(kwargs=b"{}") == key(kwargs=b"{}")
    different = [
        key(), key(function="g"), key(timeout=1.0), key(format="pickle"), key(seal=b"s"),
        key(kwargs=b"{1}"), key(kwargs=b"{1}", format="msgpack"),
        key(ref=FunctionRef("tasks", "f")), key(ref=FunctionRef("tasks", "g")),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
