"""An agent and a dispatcher made up, over a network that loses, doubles, delays and reorders."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.wire.messages import BatchTerms
from lone_agent import LoneAgent
from simulated_pool import Work
from virtual_time import run

FATES = st.lists(
    st.sampled_from([(), (0.0,), (0.0, 0.0), (0.3,), (2.0,), (0.0, 5.0), (7.0,)]), max_size=40
)


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
        async with LoneAgent(fates, work) as bench:
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
        async with LoneAgent(work=work) as bench:
            await bench.caller.send(1)
            await bench.caller.send(1, copy="-again")
            await bench.caller.until(bench.caller.done)
            assert work.runs == {1: 1}

    run(scenario())


@pytest.mark.parametrize("wanted", [True, False])
def test_a_later_attempt_is_claimed_before_it_is_computed(wanted: bool) -> None:
    work = Work()

    async def scenario() -> None:
        async with LoneAgent(work=work) as bench:
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


def test_a_draining_agent_hands_back_what_it_has_not_begun() -> None:
    work = Work(seconds=lambda item: 5.0)

    async def scenario() -> None:
        async with LoneAgent(work=work) as bench:
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
        async with LoneAgent(work=work) as bench:
            await bench.caller.send(3)
            await bench.caller.until(bench.caller.done)
            assert bench.caller.reported[3] == 1 and not bench.caller.values
            assert sum(bench.agent._state.counts.crashes.values()) == 1
            await bench.caller.send(4)
            await bench.caller.until(lambda: bench.caller.values.get(4) == 8)

    run(scenario())
