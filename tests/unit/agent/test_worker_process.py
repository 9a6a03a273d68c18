"""Workers that cannot be started, or die while they start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.agent.output_relay import output_relay
from jetmap.agent.worker_process import StartError, WorkerProcess, failure_of
from jetmap.agent.worker_state import Death
from jetmap.settings import Settings
from jetmap.wire.worker_start import Importing

pytestmark = pytest.mark.anyio


async def test_what_cannot_be_started_leaves_nothing_open(tmp_path: Path) -> None:
    options = AgentOptions(
        Settings(pool="p"), setup=worker_setup(Settings()), sys_path=(), cwd=str(tmp_path / "gone")
    )
    output_relay()  # It is made once for a process.
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    for _ in range(5):
        with pytest.raises(StartError) as caught:
            await WorkerProcess.start(options, None, worker_setup(Settings()))
        assert caught.value.failure.type == "FileNotFoundError"
        assert "gone" in caught.value.failure.message
    assert len(os.listdir("/dev/fd")) <= before  # noqa: PTH208


def test_a_death_before_the_first_frame_is_a_failure_to_start() -> None:
    failure = failure_of(Death(11, None, 0))
    assert failure.type == "WorkerStartFailed"
    assert failure.message == "the worker was killed by SIGSEGV while it started"


def test_a_death_in_the_import_of_tasks_names_the_file_and_watches_it() -> None:
    failure = failure_of(Death(None, 0, 0), Importing("tasks.py", "/home/me/tasks.py"))
    assert "exited with code 0 while it imported tasks.py" in failure.message
    assert failure.files == ["/home/me/tasks.py"]
