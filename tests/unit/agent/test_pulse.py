"""The steps of an agent, on one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from jetmap.agent.pulse import Pulse
from jetmap.background import Background
from virtual_time import START, run

SECONDS = 10.5


class Log:
    """The times at which steps ran."""

    def __init__(self) -> None:
        self.runs: dict[str, list[float]] = {}

    def step(self, name: str, seconds: float = 0.0) -> Callable[[], Awaitable[None]]:
        """Return a step that takes this long."""
        self.runs[name] = []

        async def act() -> None:
            self.runs[name].append(round(asyncio.get_running_loop().time() - START, 3))
            await asyncio.sleep(seconds)

        return act


def pulsing(prepare: Callable[[Pulse], None]) -> int:
    """Let a pulse run for ``SECONDS``; return how often it waited for its timer."""
    waits = 0

    async def scenario() -> None:
        nonlocal waits
        background = Background("pulse")
        pulse = Pulse(background)
        prepare(pulse)
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def counted(*given: object, **more: object) -> object:
            nonlocal waits
            waits += 1
            return call_at(*given, **more)  # type: ignore[arg-type]

        loop.call_at = counted  # type: ignore[assignment, method-assign]
        background.spawn(pulse.run(), "pulse")
        await asyncio.sleep(SECONDS)
        await background.close()

    run(scenario())
    return waits - 1


def test_a_step_that_can_wait_runs_with_one_that_cannot() -> None:
    log, busy = Log(), False

    def prepare(pulse: Pulse) -> None:
        pulse.add(2.0, log.step("beat"))
        pulse.add(3.0, log.step("renew"), lambda: busy)
        pulse.add(1.0, log.step("check"), lambda: busy)

    resting = pulsing(prepare)
    assert log.runs == {"beat": [2, 4, 6, 8, 10], "renew": [4, 8], "check": [2, 4, 6, 8, 10]}
    assert 5 < resting <= 5 + 10 + 1, "one timer for all, besides those of the steps"
    busy = True
    pulsing(prepare)
    assert log.runs["check"] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert log.runs["renew"] == [3, 6, 9] and log.runs["beat"] == [2, 4, 6, 8, 10]


def test_a_step_that_takes_long_holds_up_no_other_and_is_not_begun_twice() -> None:
    log = Log()

    def prepare(pulse: Pulse) -> None:
        pulse.add(2.0, log.step("beat"))
        pulse.add_beside(1.0, log.step("slow", 2.5), lambda: True)
        pulse.add_beside(1.0, log.step("unwanted"), lambda: False)

    pulsing(prepare)
    assert log.runs["beat"] == [2, 4, 6, 8, 10]
    assert log.runs["slow"] == [1, 4, 7, 10] and log.runs["unwanted"] == []


@pytest.mark.parametrize("beside", [True, False])
def test_a_step_that_fails_is_repeated(beside: bool, caplog: pytest.LogCaptureFixture) -> None:
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps < 3:
            raise ValueError("unexpected")

    def prepare(pulse: Pulse) -> None:
        pulse.add(2.0, Log().step("beat"))
        (pulse.add_beside if beside else pulse.add)(2.0, step, lambda: True)

    pulsing(prepare)
    assert steps == 5
    assert caplog.text.count("ValueError: unexpected") == 2
