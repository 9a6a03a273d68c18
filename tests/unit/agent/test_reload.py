"""The replacement of workers after a change of their source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from jetmap.agent import reload
from jetmap.agent.reload import Reload
from jetmap.agent.worker_process import StartError, WorkerProcess
from jetmap.wire.worker_start import StartFailed

pytestmark = pytest.mark.anyio


class Trial:
    """A worker that tries the new source."""

    def __init__(self) -> None:
        self.is_warm = self.has_failed = self.is_ended = False
        self.why = StartFailed("E", "it is broken", "")

    def fail(self, message: str, *files: Path) -> None:
        self.has_failed = True
        self.why = StartFailed("E", message, "", [str(file) for file in files])

    async def failure(self) -> StartFailed:
        return self.why

    async def end(self) -> None:
        assert not self.is_ended
        self.is_ended = True


class Source:
    """A watched file, the trials of its changes, and a clock."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trials: list[Trial] = []
        self.refusal: StartError | None = None
        self.now = 0.0
        self.file = directory / "tasks.py"
        self.change(self.file)
        self.reload = Reload(self.start)
        self.reload.watch([str(self.file)])
        monkeypatch.setattr(reload.time, "monotonic", lambda: self.now)

    async def start(self) -> WorkerProcess:
        if self.refusal is not None:
            raise self.refusal
        self.trials.append(Trial())
        return cast(WorkerProcess, self.trials[-1])

    def change(self, file: Path) -> None:
        file.touch()
        self.stamp = getattr(self, "stamp", 1_000_000) + 1
        os.utime(file, (self.stamp, self.stamp))

    async def check(self, *, is_serving: bool = True) -> bool:
        return await self.reload.check(is_serving=is_serving)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    return Source(tmp_path, monkeypatch)


async def test_workers_are_replaced_once_the_change_is_imported(source: Source) -> None:
    assert not await source.check()
    assert source.trials == []
    source.change(source.file)
    assert not await source.check()
    assert not await source.check()
    (trial,) = source.trials
    trial.is_warm = True
    assert await source.check()
    assert trial.is_ended
    assert not await source.check()
    assert len(source.trials) == 1


async def test_workers_stay_while_the_source_is_broken(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.change(source.file)
    await source.check()
    source.trials[0].fail("it is broken")
    for _ in range(5):  # The clock stands still: the next trial is not due yet.
        assert not await source.check()
    assert source.trials[0].is_ended
    assert len(source.trials) == 1
    assert "it is broken" in str(source.reload.failure)
    source.now += reload.RESTART_PAUSES[1]
    await source.check()
    source.trials[1].fail("it is broken")
    await source.check()
    assert caplog.text.count("it is broken") == 1
    source.now += reload.RESTART_PAUSES[1]
    await source.check()
    source.trials[2].is_warm = True
    assert await source.check()
    assert source.reload.failure is None


async def test_a_change_during_a_trial_begins_another(source: Source) -> None:
    source.change(source.file)
    await source.check()
    source.trials[0].is_warm = True
    source.change(source.file)
    assert not await source.check()
    assert source.trials[0].is_ended
    source.trials[1].is_warm = True
    assert await source.check()


async def test_a_file_that_the_failure_names_is_watched(source: Source, tmp_path: Path) -> None:
    helper = tmp_path / "helper.py"
    source.change(helper)
    source.change(source.file)
    await source.check()
    source.trials[0].fail("the helper is broken", helper)
    await source.check()
    source.change(helper)
    assert not await source.check()
    source.trials[1].is_warm = True
    assert await source.check()


async def test_without_a_worker_to_lose_the_change_is_taken_at_once(source: Source) -> None:
    source.change(source.file)
    assert await source.check(is_serving=False)
    assert source.trials == []
    source.change(source.file)
    await source.check()
    assert await source.check(is_serving=False)  # The workers have died meanwhile.
    assert source.trials[0].is_ended


async def test_without_trials_every_change_is_taken_at_once(source: Source) -> None:
    plain = Reload(None)
    plain.watch([str(source.file)])
    source.change(source.file)
    assert await plain.check(is_serving=True)


async def test_a_trial_that_the_system_refuses_is_repeated(source: Source) -> None:
    source.refusal = StartError(MemoryError("no memory"))
    source.change(source.file)
    assert not await source.check()
    assert "no memory" in str(source.reload.failure)
    source.refusal = None
    source.now += reload.RESTART_PAUSES[1]
    await source.check()
    source.trials[0].is_warm = True
    assert await source.check()


async def test_closing_ends_the_trial(source: Source) -> None:
    source.change(source.file)
    await source.check()
    await source.reload.close()
    assert source.trials[0].is_ended
    assert not await source.check()
