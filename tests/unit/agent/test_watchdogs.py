"""Watches over a worker's chunk: its items' timeouts, its budget, and imports."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest

import virtual_time
from jetmap.agent import watchdogs
from jetmap.agent.watchdogs import (
    AGAIN_SECONDS,
    JAM_SECONDS,
    Deadline,
    ImportWatch,
    Jam,
    Overrun,
    import_failure,
)
from jetmap.agent.worker_state import Death
from jetmap.wire.worker_start import Broken, Importing
from jetmap.worker.progress import ProgressPages
from waiting import turns


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(watchdogs.time, "monotonic", lambda: self.now)


@pytest.mark.anyio
async def test_only_the_first_call_has_the_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    progress = ProgressPages.create()
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


def test_a_spent_budget_is_seen_in_the_item_that_spends_it() -> None:
    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        progress = ProgressPages.create()
        spent: list[float] = []
        watch = Overrun(progress, 1, 100, 0.5, lambda: spent.append(loop.time()))
        progress.begin(1)
        await asyncio.sleep(2)
        assert not spent, "the chunk is still being decoded"
        progress.expect(loop.time() + 1, 0.5)  # The second item may begin until then.
        progress.enter(100)
        await asyncio.sleep(0.5)
        progress.enter(101)  # The third, half a second later.
        began = loop.time()
        await asyncio.sleep(10)
        watch.cancel()
        progress.close()
        return [at - began for at in spent]

    (after,) = virtual_time.run(scenario())
    assert 0.999 <= after <= 1.0 + 2 * AGAIN_SECONDS


def test_a_budget_is_not_watched_beyond_its_chunk() -> None:
    async def scenario() -> None:
        progress = ProgressPages.create()
        Overrun(progress, 1, 0, 0.5, lambda: pytest.fail("it has ended"))
        progress.begin(1)
        progress.begin(2)
        progress.expect(1.0, 0.0)
        progress.enter(0)
        await asyncio.sleep(10)
        progress.close()

    virtual_time.run(scenario())


def test_a_jam_is_seen_once_the_worker_stays_in_a_chunk() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        progress = ProgressPages.create()
        jammed: list[float] = []
        began = loop.time()
        Jam(progress, 1, lambda: jammed.append(loop.time() - began))
        for number in range(1, 6):
            progress.begin(number)
            await asyncio.sleep(0.6 * JAM_SECONDS)
            assert not jammed
        await asyncio.sleep(1)
        progress.close()
        (after,) = jammed
        return after

    assert virtual_time.run(scenario()) <= 7 * JAM_SECONDS


DEATH = Death(9, None, 0)


def test_an_import_that_ends_in_time_is_not_blamed() -> None:
    async def scenario() -> None:
        watch = ImportWatch(5.0, lambda: pytest.fail("it has ended"))
        watch.on_importing(Importing("slow", "/slow.py"))
        assert watch.is_importing
        await asyncio.sleep(4)
        watch.on_importing(Importing())
        await asyncio.sleep(10)
        assert not watch.is_importing
        assert watch.on_death(DEATH, was_killed=False) is None

    virtual_time.run(scenario())


@pytest.mark.parametrize("was_killed", [False, True])
def test_an_import_that_kills_its_worker_is_named(was_killed: bool) -> None:
    async def scenario() -> Broken | None:
        watch = ImportWatch(5.0, lambda: None)
        watch.on_importing(Importing("bad", "/bad.py"))
        return watch.on_death(DEATH, was_killed=was_killed)

    broken = virtual_time.run(scenario())
    if was_killed:
        assert broken is None, "it was killed for another reason"
    else:
        assert broken is not None and broken.files == ["/bad.py"]
        assert broken.text == (
            "the worker was killed by SIGKILL while it imported bad; perhaps it ran out of memory"
        )


@pytest.mark.parametrize(
    ("home", "death", "said"),
    [
        (
            "bad.py",
            Death(None, 0, 0),
            "exited with code 0 while.* bad.py; .*if __name__ ==",
        ),
        ("bad.py", Death(11, None, 0), "killed by SIGSEGV while.*`python -X faulthandler bad.py`"),
        ("a.bad", Death(6, None, 0), "killed by SIGABRT while.*`python -X faulthandler -m a.bad`"),
    ],
)
def test_what_ends_a_worker_in_an_import_has_its_advice(home: str, death: Death, said: str) -> None:
    assert re.search(said, import_failure(Importing(home), death))


def test_an_import_that_hangs_is_named_with_the_setting() -> None:
    async def scenario() -> Broken | None:
        expired: list[bool] = []
        watch = ImportWatch(5.0, lambda: expired.append(True))
        watch.on_importing(Importing("stuck"))
        await asyncio.sleep(30)
        assert expired == [True]
        return watch.on_death(DEATH, was_killed=True)

    broken = virtual_time.run(scenario())
    assert broken == Broken(
        "stuck", "the import of stuck did not end within 5 s (start_timeout)", []
    )


@pytest.mark.parametrize(
    ("death", "seconds", "said"),
    [
        (Death(signal.SIGALRM, None, 0), 0.0, "m.load, which loads what f() needs, did not end"),
        (Death(signal.SIGKILL, None, 0), 10.1, "did not end within 5 s"),
        (Death(signal.SIGKILL, None, 0), 0.0, "was killed by SIGKILL in m.load.*ran out of memory"),
        (Death(None, 3, 0), 0.0, "exited with code 3 in m.load, which loads what f"),
    ],
)
def test_a_loader_that_hangs_or_dies_is_named(death: Death, seconds: float, said: str) -> None:
    async def scenario() -> Broken | None:
        watch = ImportWatch(60.0, lambda: None)
        watch.on_importing(Importing("m:f()", "", "m.load", 5.0))
        await asyncio.sleep(seconds)
        return watch.on_death(death, was_killed=seconds > 0)

    broken = virtual_time.run(scenario())
    assert broken is not None and broken.home == "m:f()" and broken.loader == "m.load"
    assert re.search(said.replace("()", r"\(\)"), broken.text)
