"""Clocks of the broker in memory."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.nats.clock import LoopClock, ManualClock


def test_a_manual_clock_calls_what_falls_due_at_its_own_time() -> None:
    clock = ManualClock(0.0)
    calls: list[tuple[str, float]] = []

    def again() -> None:
        calls.append(("first", clock.now()))
        clock.call_at(1.5, lambda: calls.append(("within", clock.now())))

    clock.call_at(2.0, lambda: calls.append(("second", clock.now())))
    clock.call_at(1.0, again)
    clock.call_at(1.0, lambda: calls.append(("same time", clock.now())))
    clock.call_at(9.0, lambda: calls.append(("never", clock.now())))
    clock.advance(0.5)
    assert calls == []
    clock.advance(2.5)
    assert calls == [("first", 1.0), ("same time", 1.0), ("within", 1.5), ("second", 2.0)]
    assert clock.now() == 3.0


def test_what_is_already_due_is_called_at_the_next_advance() -> None:
    clock = ManualClock(5.0)
    calls: list[float] = []
    clock.call_at(1.0, lambda: calls.append(clock.now()))
    clock.advance(0.0)
    assert calls == [5.0]


@pytest.mark.anyio
async def test_the_loops_clock_is_the_loops_time() -> None:
    clock = LoopClock()
    called = asyncio.Event()
    clock.call_at(clock.now(), called.set)
    await asyncio.wait_for(called.wait(), 10)
    assert clock.now() <= asyncio.get_running_loop().time()
