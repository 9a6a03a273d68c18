"""``jetmap worker``: offer this host's cores to a pool."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import typer

from jetmap.agent.agent import Agent
from jetmap.agent.announcements import unready
from jetmap.agent.chunks import FLUSH_SECONDS
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.background import beside
from jetmap.errors import ConfigurationError, WorkerStartFailed
from jetmap.import_path import hiding_advice, hiding_files
from jetmap.machine import check_text, keep_heap, working_directory
from jetmap.nats.auth import Auth
from jetmap.nats.broker import Broker, Message
from jetmap.nats.connection import Connection
from jetmap.settings import Settings
from jetmap.time_budget import TimeBudget
from jetmap.wire.presence import Presence
from jetmap.wire.seals import offer_of
from jetmap.wire.subjects import presence

from .children import local_up
from .clusters import with_broker
from .exits import Exit
from .options import BROKER, WORKER, takes
from .shared_cores import share, taken_cores
from .signals import LEAVE_SECONDS, Stop, StopRequested, run, wait_for_any

logger = logging.getLogger(__name__)


@takes("tasks", *BROKER, *WORKER, serves=True)
def worker(settings: Settings) -> None:
    """Offer this host's cores to a pool.

    Their number comes from affinity and cgroup limits. After SIGTERM or Ctrl-C the worker takes
    nothing more, finishes or hands back what it has within --grace seconds and exits with 0. A
    second signal ends it at once.

    Example: jetmap worker tasks.py --nats nats://broker:4222 --nats-password-file password
    """
    if not settings.workers.tasks:
        raise ConfigurationError(["name the TASKS to run: jetmap worker tasks.py --nats URL"])
    import uvloop

    keep_heap()
    patience = settings.workers.grace + FLUSH_SECONDS + LEAVE_SECONDS
    raise typer.Exit(run(serve(settings), uvloop.new_event_loop, patience=patience))


STEP_SECONDS = 1.0  # Seconds between two looks whether a worker is ready, or still loads.


async def serve(settings: Settings) -> int:
    """Run an agent until a signal. Returns the exit code."""
    stop = Stop()
    settings = with_broker(settings)
    opening = Connection.open(
        settings.broker.servers(),
        name="jetmap worker",
        auth=Auth.of(settings),
        timeout=settings.workers.start_timeout,
    )
    try:
        connection = await stop.cancel_on_request(opening)
    except StopRequested:
        return Exit.OK  # It has no chunks yet.
    try:
        options = agent_options(settings)
        if not options.local:  # The agent of an `up` is the first of its pool here.
            chosen = share(
                settings.workers.cores, await taken_cores(connection, settings.broker.pool)
            )
            if chosen.warning is not None:
                logger.warning("%s", chosen.warning)
            options = replace(options, cores=chosen.cores)
        agent = Agent(connection, options)
        async with _metrics(agent, settings):
            return await _offer(agent, connection, settings, stop)
    finally:
        await connection.close()


@asynccontextmanager
async def _metrics(agent: Agent, settings: Settings) -> AsyncIterator[None]:
    """Serve the agent's own metrics, if the settings say where."""
    if settings.workers.metrics_port is None:
        yield
        return
    from jetmap.monitoring.agent_metrics import AgentCollector, MetricsServer

    server = MetricsServer(AgentCollector(agent))
    await server.start(settings.workers.metrics_host, settings.workers.metrics_port)
    try:
        yield
    finally:
        await server.close()


async def _offer(agent: Agent, connection: Broker, settings: Settings, stop: Stop) -> int:
    state = FirstState()
    if not settings.workers.reload:
        # Until a worker is ready, the command ends with the fault that the log would show, too.
        unready.addFilter(lambda record: state.was_ready)
    subject = presence(settings.broker.pool, agent.id)
    subscription = await connection.subscribe(subject, state.on_message)
    try:
        await stop.cancel_on_request(agent.start())
        budget = TimeBudget(settings.workers.start_timeout)
        while not (budget.is_over or state.decided.is_set() or stop.requested.is_set()):
            began = time.monotonic()
            await wait_for_any(state.decided, stop.requested, timeout=budget.step(STEP_SECONDS))
            budget.spend(time.monotonic() - began)
        while state.loading and not state.decided.is_set() and not stop.requested.is_set():
            # A loader has a time limit of its own.
            await wait_for_any(state.decided, stop.requested, timeout=STEP_SECONDS)
        if agent.refused is not None:
            raise agent.refused
        if not stop.requested.is_set() and not settings.workers.reload:
            state.check(settings.workers.start_timeout)
        if state.ready:
            names = ", ".join(sorted(state.functions))
            text = "1 core of pool %s runs: %s"
            if state.cores != 1:
                text = f"{state.cores} cores of pool %s run: %s"
            logger.info(text, settings.broker.pool, names)
        gc.freeze()  # The collector need not visit again what the start made: it stays.
        await stop.requested.wait()
        if stop.by is not None:
            logger.info("%s: finishing within %g s", stop.by.name, settings.workers.grace)
        await _drain(agent, settings.workers.grace, stop)
    except StopRequested:
        pass  # It has no chunks yet.
    finally:
        await agent.stop()
        await subscription.unsubscribe()
    return Exit.OK


async def _drain(agent: Agent, grace: float, stop: Stop) -> None:
    """Drain the agent, until it is done or a second signal comes."""
    async with beside(agent.drain(grace)) as [draining], beside(stop.forced.wait()) as [forced]:
        await asyncio.wait({draining, forced}, return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            await draining


class FirstState:
    """The agent's announcements until a worker is ready or cannot start, which sets ``decided``."""

    def __init__(self) -> None:
        self.decided = asyncio.Event()
        self.was_ready = False
        self.ready = 0
        self.cores = 0
        self.functions: list[str] = []
        self.failure: str | None = None
        self.loading = ""  # The per_worker loader in progress.

    async def on_message(self, message: Message) -> None:
        found = msgspec.msgpack.decode(message.data, type=Presence)
        self.ready, self.cores, self.failure = found.ready, found.cores, found.failure
        self.loading = found.loading
        self.functions = [f.name for f in found.functions] or self.functions
        self.was_ready = self.was_ready or self.ready > 0
        if self.ready or self.failure:
            self.decided.set()

    def check(self, timeout: float) -> None:
        """Raise WorkerStartFailed unless a worker is ready."""
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
    cwd = str(working_directory())
    for entry in sys.path:
        check_text("a directory of sys.path", entry)
    if any(Path(file).stem in sys.modules for file in hiding_files([cwd, *sys.path])):
        logger.warning("%s", hiding_advice([cwd, *sys.path]))
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
