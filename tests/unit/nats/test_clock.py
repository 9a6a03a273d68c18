"""The clocks of the broker in memory."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetmap.nats.clock import LoopClock, ManualClock

pytestmark = pytest.mark.anyio


@given(st.lists(st.integers(0, 50), max_size=20), st.lists(st.integers(0, 20), max_size=10))
def test_calls_are_made_in_order_each_at_its_own_time(due: list[int], steps: list[int]) -> None:
    clock = ManualClock(start=0.0)
    called: list[tuple[float, int]] = []
    for number, when in enumerate(due):
        clock.call_at(when, lambda number=number: called.append((clock.now(), number)))  # type: ignore[misc]
    for step in [*steps, 50]:
        until = clock.now() + step
        clock.advance(step)
        assert clock.now() == until
        assert len(called) == sum(when <= until for when in due)
    assert called == sorted((float(when), number) for number, when in enumerate(due))


def test_a_call_that_is_late_is_made_without_turning_back() -> None:
    clock = ManualClock(start=10.0)
    times: list[float] = []
    clock.call_at(3.0, lambda: times.append(clock.now()))
    clock.call_at(11.0, lambda: clock.call_at(11.5, lambda: times.append(clock.now())))
    clock.advance(2)
    assert times == [10.0, 11.5]


async def test_the_loops_clock_is_the_loops() -> None:
    clock, called = LoopClock(), asyncio.Event()
    clock.call_at(clock.now(), called.set)
    await called.wait()
    assert clock.now() <= asyncio.get_running_loop().time()
