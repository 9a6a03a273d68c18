"""Commands that run in the test's process, with jobs in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fake_jobs import FakeJobs, JobCluster
from jetmap.cli import store
from jetmap.cli.app import build
from jetmap.settings import Settings

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
