"""The spare worker of an agent: started where loading is slow, taken by a core, replaced."""

from __future__ import annotations

from typing import Any

import pytest

import virtual_time
from jetmap.agent import spare as spare_module
from jetmap.agent.spare import PAUSES, Spare, has_room
from jetmap.agent.worker_process import StartError
from jetmap.wire.worker_start import Ready, StartFailed


class Worker:
    pid = 5

    def __init__(self) -> None:
        self.is_warm = self.has_failed = self.ended = self.dismissed = False

    async def failure(self) -> StartFailed:
        return StartFailed("MemoryError", "no memory", "")

    async def end(self) -> None:
        self.ended = True

    def dismiss(self) -> None:
        self.dismissed = True

    async def gone(self) -> None: ...

    def close(self) -> None: ...


class Bench:
    def __init__(self, *, wanted: bool = True, room: bool = True) -> None:
        self.started: list[Worker] = []
        self.room = room
        self.cannot_start = False
        self.spare = Spare(self._start, wanted=wanted, has_room=lambda size: self.room)

    async def _start(self) -> Any:
        if self.cannot_start:
            raise StartError(OSError("no process"))
        self.started.append(Worker())
        return self.started[-1]

    def loaded(self, seconds: float) -> None:
        self.spare.on_ready(Ready([], "", [], [], {"m.load": seconds}))

    async def check(self, *, settled: bool = True) -> int:
        await self.spare.check(settled=settled, size=lambda: 1 << 30)
        return len(self.started)


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int | None]]:
    made: list[tuple[int, int | None]] = []
    monkeypatch.setattr(spare_module, "pin_process", lambda pid, cpu: made.append((pid, cpu)))
    return made


def test_a_spare_is_started_only_where_loading_is_slow_and_there_is_room() -> None:
    async def scenario() -> None:
        for bench, seconds, settled in (
            (Bench(), 0.9, True),
            (Bench(), 1.1, False),
            (Bench(wanted=False), 1.1, True),
            (Bench(room=False), 1.1, True),
        ):
            bench.loaded(seconds)
            assert await bench.check(settled=settled) == 0
        bench = Bench()
        bench.loaded(1.1)
        assert await bench.check() == await bench.check() == 1, "one is enough"

    virtual_time.run(scenario())


def test_a_core_takes_the_spare_and_the_next_one_is_started(pinned: list[Any]) -> None:
    async def scenario() -> None:
        bench = Bench()
        assert bench.spare.take(1) is None
        bench.loaded(2.0)
        await bench.check()
        bench.started[0].is_warm = True
        assert bench.spare.take(1) is bench.started[0] and pinned == [(5, 1)]
        assert bench.spare.take(0) is None
        assert await bench.check() == 2

    virtual_time.run(scenario())


def test_a_spare_that_cannot_start_is_tried_again_after_a_pause() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.loaded(2.0)
        await bench.check()
        bench.started[0].has_failed = True
        assert bench.spare.take(1) is None
        assert await bench.check() == 1 and bench.started[0].ended
        assert await bench.check() == 1
        await virtual_time.asyncio.sleep(PAUSES[0])
        bench.cannot_start = True
        assert await bench.check() == 1
        bench.cannot_start = False
        assert await bench.check() == 1
        await virtual_time.asyncio.sleep(2 * PAUSES[0])
        assert await bench.check() == 2

    virtual_time.run(scenario())


@pytest.mark.parametrize("warm", [True, False])
def test_an_old_spare_is_dropped(warm: bool) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.loaded(2.0)
        await bench.check()
        bench.started[0].is_warm = warm
        await bench.spare.drop()
        # What it has loaded is torn down, unless it is still loading.
        assert bench.started[0].dismissed is warm and bench.started[0].ended is not warm
        bench.spare.forget()
        assert await bench.check() == 1

    virtual_time.run(scenario())


def test_a_tenth_of_the_memory_stays_free() -> None:
    assert has_room(20, free=30, whole=100)
    assert not has_room(21, free=30, whole=100)
