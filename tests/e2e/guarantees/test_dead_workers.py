"""What is read of a worker after its death, and what is found of what it had started."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jetmap.agent.agent import Agent
from jetmap.agent.descendants import end_marked
from jetmap.agent.options import AgentOptions
from jetmap.agent.output_relay import output_relay
from jetmap.agent.worker_pipe import AgentPipe
from jetmap.agent.worker_process import StartError, WorkerProcess
from jetmap.settings import Settings
from jetmap.wire import frames
from jetmap.wire.messages import Setup
from waiting import wait_until

pytestmark = pytest.mark.anyio

VARIABLE = "TEST_DESCENDANTS"


async def test_what_the_dead_had_sent_is_read_though_another_holds_its_end() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with theirs:  # As a forked child would, for ever.
        channel = await AgentPipe.open(ours)
        sent = [os.urandom(60_000) for _ in range(3)]
        rest = b"".join(frames.frame(frames.PART, payload) for payload in sent)
        while rest:
            try:
                rest = rest[theirs.send(rest) :]
            except BlockingIOError:
                await asyncio.sleep(0)
        channel.finish()
        async with asyncio.timeout(5):
            for payload in sent:
                assert await channel.receive() == (frames.PART, payload)
            assert await channel.receive() is None


async def test_one_that_writes_on_and_on_is_not_read_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = await AgentPipe.open(ours)
        channel.finish()

        async def chatter() -> None:
            while True:
                theirs.send(b"x")
                await asyncio.sleep(0.005)

        talking = asyncio.ensure_future(chatter())
        async with asyncio.timeout(10):
            assert await channel.receive() is None
        talking.cancel()


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
        Settings(pool="p"), setup=Setup(), sys_path=(), cwd=str(tmp_path / "gone")
    )
    output_relay()  # It is made once for a process.
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    for _ in range(5):
        with pytest.raises(StartError) as caught:
            await WorkerProcess.start(options, None, Setup())
        assert caught.value.failure.type == "FileNotFoundError"
        assert "gone" in caught.value.failure.message
    assert len(os.listdir("/dev/fd")) <= before  # noqa: PTH208


async def test_what_an_agent_does_by_itself_survives_a_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps: list[float] = []

    async def step() -> None:
        steps.append(time.monotonic())
        if len(steps) < 3:
            raise ValueError("unexpected")

    agent: Any = object.__new__(Agent)
    going_on = asyncio.ensure_future(agent._every(0.01, step))
    await wait_until(lambda: len(steps) >= 4, "it goes on")
    going_on.cancel()
    assert caplog.text.count("ValueError: unexpected") == 2
