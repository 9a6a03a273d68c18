"""The cores that batches wait for, begin on, and leave: the intake knows each idle one."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.agent.batches import ChunkBatch, Gathering, halved
from jetmap.agent.batching import WaitingBatches, shares_of
from jetmap.agent.holdings import HeldChunk
from jetmap.background import Background
from jetmap.wire.messages import ArrivedHead, BatchTerms, Chunk, FunctionRef, encode
from lone_agent import LoneAgent
from simulated_pool import Work
from virtual_time import run

SIZE, LINGER = 4, 0.1


class FakeSlot:
    """A core; ``batch`` is what it computes."""

    def __init__(self, begun: list[list[int]]) -> None:
        self.batch: ChunkBatch[HeldChunk] | None = None
        self.state = ("ready", None)
        self._begun = begun

    @property
    def is_idle(self) -> bool:
        return self.batch is None and self.state[0] == "ready"

    def assign(self, chunks: list[HeldChunk], batch: ChunkBatch[HeldChunk] | None) -> None:
        assert self.is_idle
        is_one = len(chunks) == 1 and not (batch is not None and batch.is_split)
        assert (batch is None) == is_one, "one chunk has a budget until it is split"
        self.batch = batch or ChunkBatch(chunks, [chunks[0].left])
        self._begun.append([held.head.number for held in chunks])


class Bench:
    """An agent's cores, and an intake that counts the idle ones."""

    def __init__(self, cores: int) -> None:
        self.begun: list[list[int]] = []
        self.slots = [FakeSlot(self.begun) for _ in range(cores)]
        self.idle = cores
        self.given_back: list[HeldChunk] = []
        self.number = 0
        slots: Any = self.slots
        self.background = Background("test")
        self.gathering: Gathering[HeldChunk] = Gathering()
        self.stopped = self.is_far = False
        self.needed: set[HeldChunk] = set()  # Chunks to fetch items for.
        self.withdrawn: set[HeldChunk] = set()  # Those that are then not wanted any more.
        me: Any = self  # The intake, and what fetches and asks ahead, too.
        self.batching = WaitingBatches(
            *(slots, self.background, self.gathering, me, me, me),
            *(self.give_back, self.on_lost),
        )

    def is_needed(self, held: HeldChunk) -> bool:
        return held in self.needed

    async def fetch(self, chunks: list[HeldChunk]) -> None:
        self.needed -= set(chunks)
        for held in self.withdrawn & set(chunks):
            held.unwanted = True

    async def give_back(self, chunks: list[HeldChunk]) -> None:
        self.given_back += chunks

    async def on_core_freed(self) -> None:
        self.idle += 1

    def on_lost(self) -> None:
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
            await self.compute_again(again)
            slot.state = ("ready", None)
        if self.batching.has_ready:
            await self.batching.on_core_freed()
        else:
            self.idle += 1

    async def compute_again(self, batches: list[ChunkBatch[HeldChunk]]) -> None:
        self.batching.compute_again(batches)
        await self.background.finish()

    def check(self) -> None:
        assert self.idle == sum(slot.is_idle for slot in self.slots)


def test_what_was_handed_on_is_not_fetched_again() -> None:
    """Its dispatcher has cut off the items that run elsewhere, and gives no others."""

    async def scenario() -> None:
        bench = Bench(1)
        (held,) = await bench.arrive(4 * SIZE)
        held.handed_on = 2 * SIZE
        bench.needed.add(held)
        bench.slots[0].batch = None
        await bench.compute_again([ChunkBatch([held], [SIZE, SIZE], True)])
        assert bench.given_back == [held] and held in bench.needed
        assert bench.begun == [[held.head.number]]

    run(scenario())


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

    run(scenario())


def test_a_timer_that_fires_early_begins_its_batch() -> None:
    """An event loop calls timers that are due within the resolution of its clock."""

    async def scenario() -> None:
        bench = Bench(1)
        await bench.arrive(1)
        await asyncio.sleep(LINGER - 5e-10)
        for _ in range(5):
            await asyncio.sleep(0)
        assert bench.begun == [[1]]

    run(scenario())


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

    run(scenario())


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
        await bench.compute_again([again])
        bench.gathering.drop(one)
        assert (again.runs, again.chunks[0]) == ([1, 2], two)
        await bench.batching.check()
        assert bench.given_back == again.chunks, "no worker can start"

    run(scenario())


def test_a_batch_is_computed_again_with_its_items_and_without_what_is_withdrawn() -> None:
    async def scenario() -> None:
        bench = Bench(1)
        (one, two, three) = await bench.arrive(1, 1, 2)
        bench.needed, bench.withdrawn = {two}, {one}
        await bench.end(bench.slots[0], dies=True)
        assert not bench.needed and bench.begun == [[1, 2, 3], [2, 3]]
        (again,) = [slot.batch for slot in bench.slots if slot.batch]
        assert again.chunks == [two, three] and not bench.given_back
        bench.stopped = True
        await bench.compute_again([again])
        assert bench.given_back == [two, three], "the agent drains"

    run(scenario())


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
                bench.gathering.drop(here.pop(which % len(here)))
            elif event in ("ends", "dies") and slot.batch is not None:
                await bench.end(slot, dies=event == "dies")
            bench.check()
        await bench.batching.clear()
        await asyncio.sleep(LINGER)
        bench.check()

    run(scenario())


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


def test_chunks_of_several_messages_share_a_batch_and_the_guilty_is_found() -> None:
    work = Work(kills=lambda item: item == 3, batch=4)

    async def scenario() -> None:
        async with LoneAgent(work=work) as bench:
            bench.caller.batch = BatchTerms(4, 0.5)
            await bench.caller.send(1, 2)
            for number in (3, 4):
                await bench.caller.send(number, map=f"m{number}")
            await bench.caller.until(bench.caller.done)
            assert work.calls == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [4]]
            assert bench.caller.values == {1: 2, 2: 4, 4: 8}
            assert bench.caller.reported[3] == 1, "with its death"
            await bench.caller.send(5)
            await bench.caller.until(lambda: bench.caller.values.get(5) == 10)

    run(scenario())


def test_another_function_does_not_wait_for_a_batch_to_linger() -> None:
    work = Work(seconds=lambda item: 1.0)

    async def scenario() -> None:
        async with LoneAgent(work=work) as bench:
            caller = bench.caller
            caller.batch = BatchTerms(4, 50.0)
            await caller.send(1)
            caller.batch = None
            for number in (2, 3):
                await caller.send(number)
            began = asyncio.get_running_loop().time()
            await caller.until(lambda: len(caller.values) == 3)
            assert asyncio.get_running_loop().time() - began < 40
            await caller.until(caller.done)

    run(scenario())


def test_a_draining_agent_gives_back_a_batch_that_lingers() -> None:
    work = Work()

    async def scenario() -> None:
        async with LoneAgent(work=work) as bench:
            bench.caller.batch = BatchTerms(4, 50.0)
            await bench.caller.send(1)
            await bench.caller.until(lambda: len(bench.agent._chunks._held) == 1)
            await bench.agent.drain(grace=1.0)
            assert bench.caller.reported[1] == 1 and not work.runs and not bench.caller.values

    run(scenario())
