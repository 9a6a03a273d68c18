"""Commands that run in the test's process, with jobs or a cluster in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner, Result

from fake_cluster import FakeCluster
from fake_jobs import FakeJobs, JobCluster
from jetmap.cli import store
from jetmap.cli.app import build
from jetmap.settings import Settings
from over_http import double

Invoke = Callable[..., Result]


@pytest.fixture
def place(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(store, "RELEASE_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def jobs(place: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    """The jobs that commands of this process find at their broker."""
    fake = FakeJobs()

    def attached(settings: Settings) -> JobCluster:
        return JobCluster(fake)

    for command in ("submit", "jobs", "job"):
        monkeypatch.setattr(f"jetmap.cli.{command}.attached", attached)
    return fake


@pytest.fixture
def invoke() -> Invoke:
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(build(list(arguments)), arguments)
        assert "Traceback" not in done.output
        return done

    return run


class Job:
    def __init__(self, steered: list[tuple[Any, ...]], id: str) -> None:
        self._steered, self._id = steered, id

    async def pause(self) -> None:
        self._steered.append(("pause", self._id))

    resume = cancel = pause

    async def limit(self, cores: int | None) -> None:
        self._steered.append(("limit", self._id, cores))


class Attached(FakeCluster):
    """A cluster as commands use it."""

    def __init__(self) -> None:
        super().__init__(double)
        self.steered: list[tuple[Any, ...]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None: ...

    def job(self, id: str) -> Job:
        return Job(self.steered, id)


@pytest.fixture
def cluster(place: object, monkeypatch: pytest.MonkeyPatch) -> Attached:
    found = Attached()

    def attached(settings: Settings) -> Attached:
        return found

    for command in ("function", "pool", "maps"):
        monkeypatch.setattr(f"jetmap.cli.{command}.attached", attached)
    return found
