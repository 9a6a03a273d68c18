"""An agent and a dispatcher made up, over a network that loses, doubles, delays and reorders."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.agent.agent import Agent
from jetmap.agent.chunks import DELIVERIES
from jetmap.agent.holdings import HeldChunk
from jetmap.nats.memory import MemoryBroker, MemoryConnection
from jetmap.wire import subjects
from jetmap.wire.constants import Constant, pack
from jetmap.wire.messages import (
    BatchTerms,
    Chunk,
    Claim,
    ClaimAnswer,
    Confirmation,
    Delivery,
    Withdraw,
    encode,
)
from jetmap.wire.presence import Presence
from jetmap.wire.timing import SILENCE
from simulated_pool import FUNCTION, SimulatedPool, Work
from virtual_time import run

POOL = "default"
FATES = st.lists(
    st.sampled_from([(), (0.0,), (0.0, 0.0), (0.3,), (2.0,), (0.0, 5.0), (7.0,)]), max_size=40
)


class Caller:
    """A dispatcher's side of the wire: chunks out, and answers to what comes back."""

    def __init__(self, connection: MemoryConnection) -> None:
        self.connection = connection
        self.id = subjects.new_id()
        self.inbox = connection.inbox(self.id)
        self.values: dict[int, int] = {}  # By number of the chunk, which has one item.
        self.reported: Counter[int] = Counter()
        self.claimed: set[int] = set()
        self.unwanted: set[tuple[str, int]] = set()
        self.answers = True
        self.offer = ""
        self.batch: BatchTerms | None = None  # Of what it sends.

    async def start(self) -> None:
        subscribe = self.connection.subscribe
        await subscribe(f"{self.inbox}.result", self._on_result)
        await subscribe(f"{self.inbox}.claim", self._on_claim)
        await subscribe(subjects.all_presence(POOL), self._on_presence)

    async def send(
        self,
        *numbers: int,
        map: str = "m",
        attempt: int = 1,
        copy: str = "",
        kwargs: bytes = b"",
    ) -> None:
        """Publish chunks of one item each, in one message."""
        chunks = [
            Chunk(
                *(map, number, attempt, FUNCTION, "msgpack", 0, 1, self.inbox, None, 0.0),
                items=encode([number]),
                kwargs=kwargs,
                batch=self.batch,
            )
            for number in numbers
        ]
        subject = subjects.work(POOL, self.offer, "main", f"{map}{copy}", numbers[0])
        await self.connection.publish(subject, encode([msgspec.Raw(encode(c)) for c in chunks]))

    async def waiting(self) -> int:
        """Return the messages that the broker has and that are not acknowledged."""
        info = await self.connection.api(f"STREAM.INFO.{subjects.stream(POOL)}")
        return int(info["state"]["messages"])

    async def until(self, condition: Any) -> None:
        """Look twice a second, in virtual time: the condition may ask the broker."""
        async with asyncio.timeout(200):
            while True:
                found = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.5)

    async def done(self) -> bool:
        return await self.waiting() == 0

    async def _on_presence(self, message: Any) -> None:
        presence = msgspec.msgpack.decode(message.data, type=Presence)
        self.offer = presence.offer or self.offer

    async def _on_result(self, message: Any) -> None:
        if not self.answers:
            return
        delivery = msgspec.msgpack.decode(message.data, type=Delivery)
        for report in delivery.reports:
            if report.count:
                (value,) = msgspec.msgpack.decode(report.values)
                assert value == 2 * report.number == self.values.setdefault(report.number, value)
            self.reported[report.number] += 1
        await self.connection.publish(delivery.inbox, encode(Confirmation([delivery.token])))

    async def _on_claim(self, message: Any) -> None:
        if not self.answers:
            return
        claim = msgspec.msgpack.decode(message.data, type=Claim)
        self.claimed |= {chunk.number for chunk in claim.chunks}
        answer = ClaimAnswer(self.inbox, claim.sequence, sorted(self.unwanted))
        await self.connection.publish(claim.inbox, encode(answer))


class Network:
    """Deals out fates to what agent and caller say to each other, once ``started``."""

    def __init__(self, fates: Sequence[Sequence[float]]) -> None:
        self.started = False
        self._fates = list(reversed(fates))

    def __call__(self, subject: str, data: bytes) -> Sequence[float]:
        ours = subject.endswith((".result", ".claim", ".mail"))
        return self._fates.pop() if self.started and ours and self._fates else (0.0,)


class Bench:
    """A pool of one agent and one caller."""

    def __init__(self, fates: Sequence[Sequence[float]] = (), work: Work | None = None) -> None:
        self.network = Network(fates)
        self.pool = SimulatedPool(MemoryBroker(network=self.network), work)
        self.agent: Agent
        self.caller: Caller

    async def __aenter__(self) -> Bench:
        await self.pool.__aenter__()
        self.caller = Caller(self.pool._connect("caller"))
        await self.caller.start()
        self.agent = await self.pool.agent(2)
        await self.caller.until(lambda: self.caller.offer)
        self.network.started = True
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.pool.__aexit__(*raised)


@given(FATES, st.lists(st.integers(1, 3), min_size=1, max_size=6), st.lists(st.booleans()))
@example([()] * 30, [2, 1, 3], [])
@example([()] * 30, [2, 1, 3], [True, True])
@examples(80)
def test_what_is_acknowledged_was_reported_whatever_the_network_does(
    fates: list[tuple[float, ...]], parcels: list[int], batched: list[bool]
) -> None:
    """batched: whether the items of each message may share calls."""
    work = Work(batch=4 if batched else 0)

    async def scenario() -> None:
        async with Bench(fates, work) as bench:
            first = 1
            for number, size in enumerate(parcels):
                is_batch = number < len(batched) and batched[number]
                bench.caller.batch = BatchTerms(4, 0.05) if is_batch else None
                await bench.caller.send(*range(first, first + size))
                first += size
            caller, numbers, attempt = bench.caller, set(range(1, first)), 1
            await caller.until(caller.done)
            while missing := numbers - set(caller.values):
                # Dropped: for the agent, a caller whose answers are all lost is gone.
                attempt += 1
                await asyncio.sleep(5)
                await caller.send(*sorted(missing), attempt=attempt)
                await caller.until(caller.done)
            assert max(work.runs.values()) <= attempt, "a held chunk is not computed again"
            await caller.until(lambda: len(bench.agent._chunks._held) == 0)

    run(scenario())


def test_a_chunk_that_comes_twice_is_computed_once_and_both_are_acknowledged() -> None:
    work = Work(seconds=lambda item: 3.0)

    async def scenario() -> None:
        async with Bench(work=work) as bench:
            await bench.caller.send(1)
            await bench.caller.send(1, copy="-again")
            await bench.caller.until(bench.caller.done)
            assert work.runs == {1: 1}

    run(scenario())


@pytest.mark.parametrize("tries", [2, 20])
def test_a_chunk_goes_elsewhere_if_its_host_has_no_room_for_a_constant(tries: int) -> None:
    """After some tries it is computed, which makes the refusal an error of its items."""

    async def scenario() -> None:
        async with Bench() as bench:
            constants, refused = bench.agent._chunks._constants, 0

            async def fetch(held: HeldChunk) -> bool:
                nonlocal refused
                refused += refused < tries
                held.refusal = "no room" if refused < tries else ""
                return True

            constants.fetch = fetch  # type: ignore[method-assign]
            constants.give = lambda worker, held: None  # type: ignore[method-assign]
            constants.are_here = lambda held: refused == tries or bool(held.refusal)  # type: ignore[method-assign]
            await bench.caller.send(1, kwargs=pack(b"", {"table": Constant("d1", 7)}))
            await bench.caller.until(lambda: bench.caller.values)
            assert refused == min(tries, DELIVERIES)
            await bench.caller.until(bench.caller.done)

    run(scenario())


@pytest.mark.parametrize("wanted", [True, False])
def test_a_later_attempt_is_claimed_before_it_is_computed(wanted: bool) -> None:
    work = Work()

    async def scenario() -> None:
        async with Bench(work=work) as bench:
            if not wanted:
                bench.caller.unwanted.add(("m", 1))
            await bench.caller.send(1, attempt=2)
            await bench.caller.until(bench.caller.done)
            assert bench.caller.claimed == {1}
            assert bench.caller.values == ({1: 2} if wanted else {})
            # The core is free for the next one.
            await bench.caller.send(7)
            await bench.caller.until(lambda: bench.caller.values.get(7) == 14)

    run(scenario())
    assert work.runs[1] == wanted


@pytest.mark.parametrize("way", ["control", "claim"])
def test_a_withdrawn_map_ends_before_its_next_item(way: str) -> None:
    work = Work(seconds=lambda item: 60.0)

    async def scenario() -> None:
        async with Bench(work=work) as bench:
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


def test_the_chunks_of_a_silent_caller_are_dropped() -> None:
    work = Work(seconds=lambda item: 0.001 if item == 1 else 300.0)

    async def scenario() -> float:
        async with Bench(work=work) as bench:
            await bench.caller.send(1)
            await bench.caller.send(2)
            bench.caller.answers = False
            began = asyncio.get_running_loop().time()
            await bench.caller.until(bench.caller.done)
            return asyncio.get_running_loop().time() - began

    assert run(scenario()) <= SILENCE + 5


def test_chunks_of_several_messages_share_a_batch_and_the_guilty_is_found() -> None:
    work = Work(kills=lambda item: item == 3, batch=4)

    async def scenario() -> None:
        async with Bench(work=work) as bench:
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


def test_what_is_withdrawn_is_in_no_batch_that_has_not_begun() -> None:
    work = Work(batch=4)

    async def scenario() -> None:
        async with Bench(work=work) as bench:
            bench.caller.batch = BatchTerms(4, 2.0)
            for number in (1, 2, 3):
                await bench.caller.send(number, map=f"m{number}")
            await bench.caller.until(lambda: len(bench.agent._chunks._held) == 3)
            withdraw = encode(Withdraw("m2"))
            await bench.caller.connection.publish(subjects.control(POOL), withdraw)
            await bench.caller.until(bench.caller.done)
            assert work.calls == [[1, 3]] and bench.caller.values == {1: 2, 3: 6}

    run(scenario())


def test_another_function_does_not_wait_for_a_batch_to_linger() -> None:
    work = Work(seconds=lambda item: 1.0)

    async def scenario() -> None:
        async with Bench(work=work) as bench:
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
        async with Bench(work=work) as bench:
            bench.caller.batch = BatchTerms(4, 50.0)
            await bench.caller.send(1)
            await bench.caller.until(lambda: len(bench.agent._chunks._held) == 1)
            await bench.agent.drain(grace=1.0)
            assert bench.caller.reported[1] == 1 and not work.runs and not bench.caller.values

    run(scenario())


def test_a_draining_agent_hands_back_what_it_has_not_begun() -> None:
    work = Work(seconds=lambda item: 5.0)

    async def scenario() -> None:
        async with Bench(work=work) as bench:
            await bench.caller.send(1)
            await bench.caller.until(lambda: work.runs[1])
            await bench.agent.drain(grace=20.0)
            assert bench.caller.values == {1: 2}
            await bench.caller.send(2)
            await asyncio.sleep(30)
            assert await bench.caller.waiting() == 1 and not work.runs[2]

    run(scenario())


def test_a_worker_that_dies_is_reported_with_its_item() -> None:
    work = Work(kills=lambda item: item == 3)

    async def scenario() -> None:
        async with Bench(work=work) as bench:
            await bench.caller.send(3)
            await bench.caller.until(bench.caller.done)
            assert bench.caller.reported[3] == 1 and not bench.caller.values
            assert sum(bench.agent._state.counts.crashes.values()) == 1
            await bench.caller.send(4)
            await bench.caller.until(lambda: bench.caller.values.get(4) == 8)

    run(scenario())
