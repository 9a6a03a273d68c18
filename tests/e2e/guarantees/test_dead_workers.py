"""The last frames of a dead worker, and the processes that it had started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jetmap.agent.descendants import end_marked
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.agent.output_relay import output_relay
from jetmap.agent.worker_process import StartError, WorkerProcess
from jetmap.settings import Settings
from waiting import wait_until

pytestmark = pytest.mark.anyio

VARIABLE = "TEST_DESCENDANTS"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        ["sleep", "1000"], start_new_session=True, env={**os.environ, VARIABLE: "ours"}
    )
    yield child
    child.kill()
    child.wait()


async def test_only_what_has_the_mark_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    for other in ("our", "ours2", "", "other"):
        end_marked(VARIABLE, other)
    assert sleeper.poll() is None
    end_marked(VARIABLE, "ours")
    await wait_until(lambda: sleeper.poll() is not None, "it ends")


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
