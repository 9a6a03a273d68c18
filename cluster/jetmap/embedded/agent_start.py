"""Import and make a keeper's agent, with a first worker that starts meanwhile."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jetmap.agent.early_worker import EarlyWorker
    from jetmap.agent.options import AgentOptions
    from jetmap.nats.connection import Connection

    from .keeper_messages import KeeperStart


class AgentLike(Protocol):
    """The part of an agent that a keeper uses."""

    @property
    def is_broken(self) -> bool: ...
    async def start(self) -> None: ...
    async def drain(self, grace: float) -> None: ...
    async def stop(self) -> None: ...


class AgentStart:
    """The steps from a keeper's first message to its agent.

    Attributes:
        server_runs: Set by the keeper once its server is ready: that comes first if few files may
            be open.
    """

    def __init__(self, start: KeeperStart) -> None:
        self.server_runs = asyncio.Event()
        self._startup = start
        self._early: EarlyWorker | None = None

    async def prepare(self) -> None:
        """Import the agent in a thread, and start its first worker meanwhile.

        That is as soon as the server runs, and what starting a worker needs is imported.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            if self._startup.agent is None:
                await loop.run_in_executor(None, import_module, "jetmap.agent.early_worker")
                tasks.create_task(self._spawn_early())
            await loop.run_in_executor(None, _import_agent)

    async def _spawn_early(self) -> None:
        from jetmap.agent.early_worker import EarlyWorker

        self._early = EarlyWorker(self._options())
        await self.server_runs.wait()
        await self._early.spawn()

    def make(self, connection: Connection) -> AgentLike:
        """Make the agent, once ``prepare`` has ended."""
        if self._startup.agent is not None:
            module, _, name = self._startup.agent.partition(":")
            made: AgentLike = getattr(import_module(module), name)(connection, self._startup)
            return made
        from jetmap.agent.agent import Agent
        from jetmap.agent.announcements import unready

        assert self._early is not None, "not prepared"
        agent = Agent(connection, self._options(), self._early.start)
        if self._startup.previous is None:
            # The caller raises the reason why no worker can start, once and in full.
            unready.addFilter(lambda record: agent.was_ready)
        return agent

    async def close(self) -> None:
        """End the first worker if no agent has taken it."""
        if self._early is not None:
            await self._early.end()

    def _options(self) -> AgentOptions:
        from jetmap.agent.options import AgentOptions, worker_setup

        start, spec = self._startup, self._startup.spec
        settings = spec.to_settings()
        setup = worker_setup(
            settings,
            tasks=spec.tasks,
            modules=spec.modules,
            main=spec.main,
            trust=True,
            grows=True,
        )
        return AgentOptions(
            settings,
            setup,
            sys_path=tuple(start.sys_path),
            cwd=start.cwd,
            cores=spec.cores,
            pinned=spec.pinned,
            ahead=spec.ahead,
            embedded=True,
        )


def _import_agent() -> None:
    import jetmap.agent.agent
    import jetmap.nats.connection  # noqa: F401
