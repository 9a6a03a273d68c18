"""``jetmap worker``: this host's cores join a pool."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import typer

from jetmap.agent.agent import Agent
from jetmap.agent.announcements import unready
from jetmap.agent.chunks import FLUSH_SECONDS
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.errors import ConfigurationError, WorkerStartFailed
from jetmap.nats.auth import Auth
from jetmap.nats.broker import Broker
from jetmap.nats.connection import Connection
from jetmap.settings import Settings
from jetmap.wire.messages import Presence
from jetmap.wire.seals import offer_of
from jetmap.wire.subjects import presence

from .exits import Exit
from .options import BROKER, WORKER, takes
from .running import with_broker
from .shared_cores import share, taken_cores
from .signals import LEAVE_SECONDS, Asked, Stop, first, run_heeding
from .tether import local_up

logger = logging.getLogger(__name__)


@takes("tasks", *BROKER, *WORKER)
def worker(settings: Settings) -> None:
    """This host's cores join the pool.

    Takes its number of cores from affinity and cgroup limits. SIGTERM or Ctrl-C: takes no
    more, finishes or hands back what it holds within --grace seconds, exits with 0; a second
    signal: at once.

    Example: jetmap worker tasks.py --nats nats://broker:4222 --nats-password-file password
    """
    if not settings.workers.tasks:
        raise ConfigurationError(["name the TASKS to run: jetmap worker tasks.py --nats URL"])
    import uvloop

    patience = settings.workers.grace + FLUSH_SECONDS + LEAVE_SECONDS
    raise typer.Exit(run_heeding(serve(settings), uvloop.new_event_loop, patience=patience))


async def serve(settings: Settings) -> int:
    """Runs an agent until a signal; returns the exit code."""
    stop = Stop()
    settings = with_broker(settings)
    opening = Connection.open(
        settings.broker.servers(),
        name="jetmap worker",
        auth=Auth.of(settings),
        timeout=settings.workers.start_timeout,
    )
    try:
        connection = await stop.unless_asked(opening)
    except Asked:
        return Exit.OK  # It had taken nothing yet.
    try:
        options = agent_options(settings)
        if not options.local:  # The agent of an `up` is the first of its pool here.
            chosen = share(
                settings.workers.cores, await taken_cores(connection, settings.broker.pool)
            )
            if chosen.warning is not None:
                logger.warning("%s", chosen.warning)
            options = replace(options, cores=chosen.cores)
        return await _offer(Agent(connection, options), connection, settings, stop)
    finally:
        await connection.close()


async def _offer(agent: Agent, connection: Broker, settings: Settings, stop: Stop) -> int:
    state = Watch()
    if not settings.workers.reload:
        # We say it ourselves, once and shorter.
        unready.addFilter(state.is_news)
    subject = presence(settings.broker.pool, agent.id)
    subscription = await connection.subscribe(subject, state.announced)
    try:
        await stop.unless_asked(agent.start())
        await first(state.decided, stop.asked, timeout=settings.workers.start_timeout)
        if agent.refused is not None:
            raise agent.refused
        if not stop.asked.is_set() and not settings.workers.reload:
            state.check(settings.workers.start_timeout)
        if state.ready:
            names = ", ".join(sorted(state.functions))
            logger.info("%d cores of pool %s run: %s", state.cores, settings.broker.pool, names)
        await stop.asked.wait()
        if stop.by is not None:
            logger.info("%s: finishing within %g s", stop.by.name, settings.workers.grace)
        await _drain(agent, settings.workers.grace, stop)
    except Asked:
        pass  # It had taken nothing yet.
    finally:
        await agent.stop()
        await subscription.unsubscribe()
    return Exit.OK


async def _drain(agent: Agent, grace: float, stop: Stop) -> None:
    """Drains until done, or until a second signal."""
    draining = asyncio.ensure_future(agent.drain(grace))
    demanded = asyncio.ensure_future(stop.demanded.wait())
    try:
        await asyncio.wait({draining, demanded}, return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            await draining
    finally:
        draining.cancel()
        demanded.cancel()
        await asyncio.gather(draining, demanded, return_exceptions=True)


class Watch:
    """What the agent says of itself: ``decided`` once a worker is ready or cannot start."""

    def __init__(self) -> None:
        self.decided = asyncio.Event()
        self.ready = 0
        self.cores = 0
        self.functions: list[str] = []
        self.failure: str | None = None
        self.was_ready = False  # After that, nothing is said here.

    async def announced(self, message: object) -> None:
        self.take(msgspec.msgpack.decode(getattr(message, "data"), type=Presence))  # noqa: B009

    def take(self, found: Presence) -> None:
        self.ready, self.cores, self.failure = found.ready, found.cores, found.failure
        self.functions = [function.name for function in found.functions]
        self.was_ready = self.was_ready or self.ready > 0
        if self.ready or self.failure:
            self.decided.set()

    def is_news(self, record: logging.LogRecord) -> bool:
        """Whether a record of the agent's log is not what ``check`` will say."""
        return self.was_ready

    def check(self, timeout: float) -> None:
        """Raises WorkerStartFailed unless a worker is ready."""
        if self.ready:
            return
        if self.failure:
            raise WorkerStartFailed(f"the workers cannot start: {self.failure}")
        raise WorkerStartFailed(
            f"no worker was ready after {timeout:g} s: if importing the tasks takes longer, "
            "raise --start-timeout"
        )


def agent_options(settings: Settings) -> AgentOptions:
    """Build the options of an agent in this process."""
    cwd = str(Path.cwd())
    up = local_up()
    key = bytes.fromhex(up.key) if up is not None else b""
    setup = worker_setup(
        settings, tasks=list(settings.workers.tasks), trust=settings.workers.trust_pickle, key=key
    )
    return AgentOptions(
        settings,
        setup,
        # A tasks file or module is found from here, as `python -m` would.
        sys_path=tuple(dict.fromkeys([cwd, *filter(None, sys.path)])),
        cwd=cwd,
        cores=settings.workers.cores,
        local=offer_of(key) if key else "",
        code=str(up.code_file) if up is not None else None,
    )
