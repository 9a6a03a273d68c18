"""Commands and the signals that stop them."""

from __future__ import annotations

import asyncio
import signal

import pytest

from jetmap.cli.signals import Stop, StopRequested, wait_for_any
from waiting import PATIENCE

pytestmark = pytest.mark.anyio


async def test_the_first_signal_requests_and_the_second_forces() -> None:
    stop = Stop()
    assert not stop.requested.is_set()
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(stop.requested.wait(), PATIENCE)
    assert (stop.forced.is_set(), stop.by) == (False, signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    await asyncio.wait_for(stop.forced.wait(), PATIENCE)
    assert stop.by is signal.SIGTERM


async def test_a_closed_terminal_requests_however_often_it_is_signalled() -> None:
    stop = Stop()
    for _ in range(2):
        signal.raise_signal(signal.SIGHUP)
        await asyncio.wait_for(stop.requested.wait(), PATIENCE)
        await asyncio.sleep(0)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(stop.forced.wait(), PATIENCE)
    assert stop.by is signal.SIGHUP


async def test_a_hangup_forces_nothing() -> None:
    stop = Stop()
    stop.on_signal(signal.SIGTERM)
    stop.on_signal(signal.SIGHUP)
    assert not stop.forced.is_set()


async def test_a_command_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(stop.requested.wait(), PATIENCE)
        assert stop.by is signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_work_that_no_signal_meets() -> None:
    async def work() -> int:
        return 7

    assert await Stop().cancel_on_request(work()) == 7


async def test_a_request_cancels_the_work_and_waits_for_its_end() -> None:
    stop, steps = Stop(), []

    async def work() -> None:
        try:
            stop.on_signal()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("ended")

    with pytest.raises(StopRequested):
        await stop.cancel_on_request(work())
    assert steps == ["ended"]


async def test_the_second_signal_does_not_wait() -> None:
    stop, release = Stop(), asyncio.Event()

    async def work() -> None:
        try:
            stop.on_signal()
            await asyncio.Event().wait()
        finally:
            stop.on_signal()
            await release.wait()

    with pytest.raises(StopRequested):
        await stop.cancel_on_request(work())


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Stop().cancel_on_request(work())


async def test_waiting_for_one_of_several() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    assert not await wait_for_any(first, second, timeout=0.001)
    second.set()
    assert await wait_for_any(first, second)
