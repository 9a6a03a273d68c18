"""Pauses between attempts, restarts, and the end of a process: in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from typing import Any

import pytest

import virtual_time
from jetmap.supervision import Backoff, Supervisor, end_process


def test_pauses_double_up_to_a_limit_and_begin_again() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.grow() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.seconds == backoff.grow() == 0.5


def test_what_lasted_long_enough_fails_as_for_the_first_time() -> None:
    backoff = Backoff(1, 8, healthy_after=30)
    assert [backoff.after(lived) for lived in (0, 29, 0, 30, 0)] == [1, 2, 4, 1, 2]
    assert [Backoff(1, 8).after(1e6)] == [1]


def test_what_ends_well_is_started_again_at_once() -> None:
    async def scenario() -> list[float]:
        starts: list[float] = []

        async def serve() -> None:
            starts.append(time.monotonic())
            if len(starts) == 3:
                supervisor.stop()

        supervisor = Supervisor(serve, Backoff(1, 8))
        await supervisor.run()
        return starts

    starts = virtual_time.run(scenario())
    assert len(starts) == 3 and starts[0] == starts[2]


def test_failures_are_reported_with_growing_pauses() -> None:
    async def scenario() -> tuple[list[float], list[tuple[str, float]]]:
        starts: list[float] = []
        reports: list[tuple[str, float]] = []

        async def serve() -> str:
            starts.append(time.monotonic())
            if len(starts) == 4:
                await asyncio.sleep(30)  # It was healthy: the pauses begin anew.
            if len(starts) == 6:
                supervisor.stop()
            return f"failure {len(starts)}"

        supervisor = Supervisor(
            serve, Backoff(1, 3, healthy_after=30), lambda how, pause: reports.append((how, pause))
        )
        await supervisor.run()
        return starts, reports

    starts, reports = virtual_time.run(scenario())
    assert reports == [
        ("failure 1", 1),
        ("failure 2", 2),
        ("failure 3", 3),
        ("failure 4", 1),
        ("failure 5", 2),
    ]
    assert [round(b - a) for a, b in itertools.pairwise(starts)] == [1, 2, 3, 31, 2]


@pytest.mark.parametrize("when", ["while it runs", "while it pauses"])
def test_hurry_cuts_the_next_pause_short(when: str) -> None:
    async def scenario() -> list[float]:
        starts: list[float] = []

        async def serve() -> str:
            starts.append(time.monotonic())
            if len(starts) == 2 and when == "while it runs":
                supervisor.hurry()
            if len(starts) == 4:
                supervisor.stop()
            return "failed"

        supervisor = Supervisor(serve, Backoff(100, 1000))
        running = asyncio.ensure_future(supervisor.run())
        if when == "while it pauses":
            await asyncio.sleep(150)
            supervisor.hurry()
        await running
        return starts

    starts = virtual_time.run(scenario())
    first, second, third = (round(b - a) for a, b in itertools.pairwise(starts))
    # The pauses begin anew behind the one that was cut short.
    assert (first, third) == (100, 100) and second == (0 if when == "while it runs" else 50)


def test_a_stop_ends_the_pause_and_an_error_ends_the_run() -> None:
    async def scenario() -> float:
        async def fail() -> str:
            return "failed"

        supervisor = Supervisor(fail, Backoff(100, 100))
        running = asyncio.ensure_future(supervisor.run())
        await asyncio.sleep(1)
        supervisor.stop()
        await running
        return time.monotonic()

    assert virtual_time.run(scenario()) == virtual_time.START + 1

    async def hopeless() -> str:
        raise RuntimeError("hopeless")

    with pytest.raises(RuntimeError, match="hopeless"):
        virtual_time.run(Supervisor(hopeless, Backoff(1, 1)).run())


class FakeProcess:
    """A process that ends at the given signal, or at SIGKILL only."""

    def __init__(self, obeys: list[signal.Signals]) -> None:
        self.obeys = obeys
        self.signals: list[signal.Signals] = []
        self.returncode: int | None = None
        self.ended = asyncio.Event()

    def send_signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if number is signal.SIGKILL or self.signals == self.obeys:
            self.returncode = -number
            self.ended.set()

    async def wait(self) -> int:
        await self.ended.wait()
        assert self.returncode is not None
        return self.returncode


TERM, KILL = signal.SIGTERM, signal.SIGKILL


@pytest.mark.parametrize(
    ("obeys", "demands", "signals", "seconds"),
    [
        ([TERM], False, [TERM], 0),
        ([], False, [TERM, KILL], 60),
        ([TERM, TERM], True, [TERM, TERM], 5),
        ([], True, [TERM, TERM, KILL], 8),
    ],
)
def test_a_process_is_ended_with_patience(
    obeys: list[signal.Signals], demands: bool, signals: list[signal.Signals], seconds: int
) -> None:
    async def scenario() -> tuple[FakeProcess, bool, float]:
        process: Any = FakeProcess(obeys)
        demanded = asyncio.Event()
        asyncio.get_running_loop().call_later(5, demanded.set)
        obeyed = await end_process(process, 60, demanded if demands else None)
        took = time.monotonic() - virtual_time.START
        assert await end_process(process, 60), "the second call does nothing"
        return process, obeyed, took

    process, obeyed, took = virtual_time.run(scenario())
    assert process.signals == signals and round(took) == seconds
    assert obeyed == (KILL not in signals)
