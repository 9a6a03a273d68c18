"""A function's first call in a worker may take longer, since it loads what it needs: bounded."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap import Cluster, ItemTimeout
from jetmap.agent import watchdogs
from jetmap.agent.warm_ups import WarmUps
from jetmap.agent.watchdogs import Deadline
from jetmap.worker.aftermath import WorkerAftermath
from jetmap.worker.progress import Progress
from servers import Site, check
from waiting import turns

quick = examples(200)
MOST = 60.0

names = st.sampled_from(["f", "g"])
events = st.one_of(
    st.tuples(st.just("warmed"), names, st.floats(0, 2 * MOST)),
    st.tuples(st.just("expired"), names, st.just(0.0)),
)


@quick
@given(st.lists(events, max_size=30))
def test_an_allowance_is_the_whole_one_until_one_expires(
    story: list[tuple[str, str, float]],
) -> None:
    warm_ups = WarmUps(MOST)
    measured = {"f": 0.0, "g": 0.0}
    expired = set()
    for what, name, seconds in story:
        if what == "warmed":
            warm_ups.on_warmed(name, seconds)
            measured[name] = max(measured[name], min(seconds, MOST))
        else:
            assert "first call" in warm_ups.on_expired(name)
            expired.add(name)
        for one in measured:
            assert warm_ups.allowance(one) == (measured[one] if one in expired else MOST)
    warm_ups.forget()
    assert warm_ups.allowance("f") == warm_ups.allowance("g") == MOST


@quick
@given(st.lists(st.floats(0.001, 100), max_size=40), st.floats(0.1, 10), st.floats(0, 20))
def test_what_hangs_costs_one_allowance(loads: list[float], timeout: float, load: float) -> None:
    """Each item hangs, in a worker of its own, except those that load and succeed."""
    warm_ups = WarmUps(MOST)
    spent, items = 0.0, 0
    for number, seconds in enumerate(loads):
        takes = load if number % 3 == 0 else seconds + 1e6
        limit = timeout + warm_ups.allowance("f")
        items += 1
        if takes <= limit:
            warm_ups.on_warmed("f", takes)
            spent += takes
        else:
            warm_ups.on_expired("f")
            spent += limit
    assert spent <= MOST + items * (timeout + load) + 1e-6


def test_the_error_says_which_time_it_had() -> None:
    warm_ups = WarmUps(MOST)
    assert "and the 60 s more that the first call" in warm_ups.on_expired("f")
    assert "Load it when the module is imported, or raise the timeout" in warm_ups.on_expired("f")
    warm_ups.on_warmed("f", 3.0)
    assert "and the 3 s more" in warm_ups.on_expired("f")


# The agent's watch


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(watchdogs.time, "monotonic", lambda: self.now)


@pytest.mark.anyio
async def test_only_the_first_call_has_the_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    progress = Progress.create()
    clock = Clock(monkeypatch)
    passed: list[tuple[int, bool]] = []
    allowance = [5.0]
    deadline = Deadline(progress, 1, 2.0, lambda *found: passed.append(found), lambda: allowance[0])

    async def look(seconds: float) -> None:
        while seconds > 0:
            clock.now += min(0.25, seconds)
            seconds -= 0.25
            deadline._seconds_left()
        await turns()

    try:
        progress.begin(1)
        progress.set_cold(True)
        progress.enter(7, int(clock.now * 1e9))
        await look(6.9)
        assert not passed
        progress.leave()
        progress.set_cold(False)
        progress.enter(8, int(clock.now * 1e9))
        await look(1.9)
        assert not passed
        await look(0.25)
        assert passed[0] == (8, False)
        passed.clear()
        progress.set_cold(True)
        progress.enter(9, int(clock.now * 1e9))
        await look(3.0)
        assert not passed
        allowance[0] = 0.0  # Another worker's expired meanwhile.
        await look(0.25)
        assert passed[0] == (9, True)
    finally:
        deadline.cancel()
        progress.close()
    assert loop.is_running()


# The worker's part


def test_an_item_that_is_refused_is_not_a_first_call() -> None:
    aftermath = WorkerAftermath()
    warmed: list[float] = []
    aftermath.begin(warmed.append)
    aftermath.failed(ValueError("does not fit"), refused=True)
    assert aftermath.due and not aftermath.settle(0.1)
    assert aftermath.due, "the next one may be"
    assert aftermath.settle(3.0) and warmed == [3.0]
    assert not aftermath.due


def test_an_item_that_raises_is_a_first_call() -> None:
    aftermath = WorkerAftermath()
    warmed: list[float] = []
    aftermath.begin(warmed.append)
    aftermath.failed(ValueError("no"), refused=False)
    assert aftermath.settle(3.0) and warmed == [3.0]


# All of it

LOADS = """
import time
from jetmap import task

loaded = set()

def load(name):
    if name not in loaded:
        time.sleep(1.5)
        loaded.add(name)

@task(timeout=0.5)
def first(n: int) -> int:
    load("first")
    return n

@task(timeout=0.5)
def second(n: int) -> int:
    load("second")
    return n

@task(timeout=0.5)
def crashes(n: int) -> int:
    load("crashes")
    if n == 3:
        import os
        os._exit(1)
    return n

@task(timeout=0.5)
def hangs(n: int) -> int:
    time.sleep(600 if n % 2 else 0)
    return n
"""


@pytest.mark.anyio
async def test_a_model_that_loads_longer_than_an_item_may_take(
    place: Site, own: Cluster, tmp_path: Path
) -> None:
    tasks = tmp_path / "loading.py"
    tasks.write_text(LOADS)
    agent = await place.agent(own, str(tasks), "--start-timeout", "20", cores=1)
    workers = {worker.pid for worker in agent.workers}
    for name in ("first", "second"):
        # The first one does not fit, and is not the call in which the function loads.
        values = await own.map(name, ["x", *range(1, 10)], return_exceptions=True)
        assert values[1:] == list(range(1, 10))
    assert {worker.pid for worker in agent.workers} == workers, "none was killed"
    values = await own.map("crashes", range(6), return_exceptions=True)
    assert [v for n, v in enumerate(values) if n != 3] == [0, 1, 2, 4, 5]


@pytest.mark.anyio
async def test_what_hangs_is_killed_and_says_so(place: Site, own: Cluster, tmp_path: Path) -> None:
    tasks = tmp_path / "hanging.py"
    tasks.write_text(LOADS)
    await place.agent(own, str(tasks), "--start-timeout", "4", cores=1)
    began = time.monotonic()
    values = await own.map("hangs", [1, 3, 5, 7, 9, 2], return_exceptions=True)
    check(values, [0, 0, 0, 0, 0, 2], dict.fromkeys(range(5), ItemTimeout))
    messages = [str(error.message) for error in values[:5]]
    assert all("timeout of 0.5 s" in message for message in messages)
    whole = [message for message in messages if "the 4 s more" in message]
    assert len(whole) == 1, f"one allowance was used up: {messages}"
    assert sum("Load it when the module is imported" in m for m in messages) == 4
    assert time.monotonic() - began > 4
