"""A keeper's agent: what is started before it, and what is left when it never comes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jetmap.agent.agent import Agent
from jetmap.agent.announcements import unready
from jetmap.agent.early_worker import EarlyWorker
from jetmap.agent.options import AgentOptions
from jetmap.embedded.agent_start import AgentStart
from jetmap.embedded.keeper_messages import KeeperSpec, KeeperStart
from jetmap.nats.memory import MemoryBroker
from waiting import turns

pytestmark = pytest.mark.anyio


class Early:
    """Steps of a first worker, written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.options: Any = None
        self.made = asyncio.Event()
        make = EarlyWorker.__init__

        def init(early: EarlyWorker, options: AgentOptions) -> None:
            make(early, options)
            self.options = options
            self.made.set()

        async def spawn(early: EarlyWorker) -> None:
            self.steps.append("spawn")

        async def end(early: EarlyWorker) -> None:
            self.steps.append("end")

        monkeypatch.setattr(unready, "filters", [])  # An agent's filter is for its process.
        monkeypatch.setattr(EarlyWorker, "__init__", init)
        monkeypatch.setattr(EarlyWorker, "spawn", spawn)
        monkeypatch.setattr(EarlyWorker, "end", end)


def startup(tmp_path: Path, **more: Any) -> KeeperStart:
    spec = KeeperSpec(tasks=["tasks.py"], cores=1, pinned=False)
    return KeeperStart(spec, str(tmp_path / "k.lock"), -1, -1, ["/lib"], str(tmp_path), **more)


async def test_the_first_worker_is_started_for_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, start = Early(monkeypatch), AgentStart(startup(tmp_path))
    preparing = asyncio.create_task(start.prepare())
    await early.made.wait()
    await turns(3)
    assert not early.steps, "the server comes first"
    start.server_runs.set()
    await preparing
    assert early.steps == ["spawn"]
    assert early.options.setup.tasks == ["tasks.py"]
    assert (early.options.sys_path, early.options.cwd) == (("/lib",), str(tmp_path))
    agent = start.make(MemoryBroker().connect())  # type: ignore[arg-type]
    assert isinstance(agent, Agent)
    await start.close()
    assert early.steps == ["spawn", "end"]


async def test_another_agent_has_no_worker_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = Early(monkeypatch)
    start = AgentStart(startup(tmp_path, agent=f"{__name__}:other"))
    await start.prepare()
    assert start.make(MemoryBroker().connect()) == "another agent"  # type: ignore[arg-type, comparison-overlap]
    await start.close()
    assert not early.steps


def other(connection: Any, start: KeeperStart) -> Any:
    return "another agent"
