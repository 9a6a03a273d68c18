"""The worker that starts before its agent: taken once, by its core, or ended."""

from __future__ import annotations

from typing import Any, Self

import pytest

from jetmap.agent import early_worker as module
from jetmap.agent.early_worker import EarlyWorker
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.agent.worker_process import StartError
from jetmap.settings import Settings
from jetmap.wire.worker_start import Setup

pytestmark = pytest.mark.anyio

SETUP = worker_setup(Settings())


class Worker:
    """A worker process that only counts."""

    made: list[Worker] = []
    fails = False

    def __init__(self, cpu: int | None) -> None:
        self.cpu = cpu
        self.setups: list[Setup] = []
        self.ended = False
        self.made.append(self)

    @classmethod
    async def spawn(cls, options: AgentOptions, cpu: int | None) -> Self:
        if cls.fails:
            raise StartError(OSError("no process"))
        return cls(cpu)

    @classmethod
    async def start(cls, options: AgentOptions, cpu: int | None, setup: Setup) -> Self:
        worker = await cls.spawn(options, cpu)
        worker.begin(setup)
        return worker

    def begin(self, setup: Setup) -> None:
        self.setups.append(setup)

    async def end(self) -> None:
        self.ended = True


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    monkeypatch.setattr(module, "WorkerProcess", Worker)
    monkeypatch.setattr(module, "choose_cores", lambda wanted: [4, 7])
    monkeypatch.setattr(Worker, "made", [])
    return Worker.made


def options(**more: Any) -> AgentOptions:
    return AgentOptions(Settings(pool="p"), setup=SETUP, sys_path=(), cwd="/", **more)


async def test_the_first_core_takes_it_once_and_sends_its_setup(made: list[Worker]) -> None:
    early = EarlyWorker(options())
    await early.spawn()
    assert [worker.cpu for worker in made] == [4] and not made[0].setups
    second: Any = await early.start(options(), 7, SETUP)
    first: Any = await early.start(options(), 4, SETUP)
    third: Any = await early.start(options(), 4, SETUP)
    assert [second, first, third] == [made[1], made[0], made[2]]
    assert all(worker.setups == [SETUP] for worker in made)
    await early.end()
    assert not any(worker.ended for worker in made), "they are the agent's"


async def test_workers_that_are_not_pinned_have_no_core(made: list[Worker]) -> None:
    early = EarlyWorker(options(pinned=False))
    await early.spawn()
    taken: Any = await early.start(options(), None, SETUP)
    assert taken is made[0] and taken.cpu is None


async def test_one_that_no_agent_has_taken_is_ended(made: list[Worker]) -> None:
    early = EarlyWorker(options())
    await early.end()
    await early.spawn()
    await early.end()
    await early.end()
    assert [worker.ended for worker in made] == [True]


async def test_one_that_cannot_start_is_left_to_the_agent_to_report(
    made: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "fails", True)
    early = EarlyWorker(options())
    await early.spawn()
    with pytest.raises(StartError, match="no process"):
        await early.start(options(), 4, SETUP)
    assert not made
