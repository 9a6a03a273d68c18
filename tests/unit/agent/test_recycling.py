"""Workers that have served long enough, and successors that start, fail, and are taken."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import virtual_time
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.agent.recycling import RESTART_PAUSES, Recycling
from jetmap.agent.worker_process import StartError
from jetmap.settings import Settings
from jetmap.wire.worker_start import StartFailed


class Worker:
    """A worker process that starts, or fails to."""

    def __init__(self) -> None:
        self.is_warm = self.has_failed = self.ended = False
        self.size = 0

    def memory(self) -> int:
        return self.size

    async def failure(self) -> StartFailed:
        return StartFailed("ImportError", "no", "")

    async def end(self) -> None:
        self.ended = True


class Bench:
    def __init__(self, **settings: Any) -> None:
        options = AgentOptions(Settings(pool="p", **settings), worker_setup(Settings()), (), "/")
        self.started: list[Worker] = []
        self.failures: list[StartFailed] = []
        self.cannot_start = False
        self.worker: Any = Worker()
        made = Recycling.wanted(options, self._start, self._fail)
        assert made is not None
        self.recycling = made
        self.recycling.begin()

    async def _start(self) -> Any:
        if self.cannot_start:
            raise StartError(OSError("no process"))
        self.started.append(Worker())
        return self.started[-1]

    async def _fail(self, failure: StartFailed) -> None:
        self.failures.append(failure)

    async def check(self, chunks: int = 0) -> int:
        await self.recycling.check(self.worker, chunks)
        return len(self.started)


def test_without_a_limit_workers_serve_for_ever() -> None:
    options = AgentOptions(Settings(pool="p"), worker_setup(Settings()), (), "/")
    unused: Any = None
    assert Recycling.wanted(options, unused, unused) is None


@pytest.mark.parametrize("limit", ["chunks", "age", "memory"])
def test_a_worker_is_spent_at_its_limit(limit: str) -> None:
    async def scenario() -> None:
        bench = Bench(**{f"recycle_{limit}": {"chunks": 3, "age": 10, "memory": 1 << 30}[limit]})
        assert await bench.check(2) == 0
        chunks = 3 if limit == "chunks" else 2
        if limit == "age":
            await asyncio.sleep(10)
        if limit == "memory":
            bench.worker.size = 1 << 30
        assert await bench.check(chunks) == 1
        assert await bench.check(chunks) == 1, "one successor is enough"
        assert not bench.recycling.is_warm
        bench.started[0].is_warm = True
        assert bench.recycling.is_warm and bench.recycling.begin() is bench.started[0]
        assert bench.recycling.begin() is None

    virtual_time.run(scenario())


def test_a_worker_that_is_not_ready_is_not_judged() -> None:
    bench = Bench(recycle_chunks=1)
    virtual_time.run(bench.recycling.check(None, 9))
    assert not bench.started


@pytest.mark.parametrize("how", ["dies", "cannot start"])
def test_a_successor_that_fails_is_tried_again_after_growing_pauses(how: str) -> None:
    async def scenario() -> list[float]:
        bench = Bench(recycle_chunks=1)
        bench.cannot_start = how == "cannot start"
        tries: list[float] = []
        began = time.monotonic()
        while len(tries) < 4:
            before = len(bench.failures)
            await bench.check(1)
            if bench.started:
                bench.started.pop().has_failed = True
                await bench.check(1)
            if len(bench.failures) > before:
                tries.append(time.monotonic() - began)
            await asyncio.sleep(0.01)
        return tries

    first, second, third, fourth = virtual_time.run(scenario())
    pause = RESTART_PAUSES[0]
    assert first == 0 and second == pytest.approx(pause, abs=0.05)
    assert third == pytest.approx(3 * pause, abs=0.05)
    assert fourth == pytest.approx(7 * pause, abs=0.05)


def test_a_successor_with_old_source_is_dropped_even_while_it_starts() -> None:
    async def scenario() -> None:
        bench = Bench(recycle_chunks=1)
        await bench.check(1)
        await bench.recycling.drop()
        assert bench.started[0].ended and bench.recycling.begin() is None
        go_on = asyncio.Event()
        start = bench._start

        async def slowly() -> Any:
            await go_on.wait()
            return await start()

        bench.recycling._start = slowly
        checking = asyncio.ensure_future(bench.check(1))
        await asyncio.sleep(1)
        await bench.recycling.drop()
        go_on.set()
        await checking
        assert bench.started[1].ended and not bench.recycling.is_warm

    virtual_time.run(scenario())
