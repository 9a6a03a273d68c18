"""Real servers and agents for end-to-end tests, and a count of processes left over.

Every process that a test starts carries the test's mark in its environment, and so does all
that those start; so whatever is left over is found, however it came to be.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from jetmap import Cluster, ItemError, Outcome
from jetmap.dispatch.ledger import Ledger
from jetmap.nats.connection import Auth, Connection
from jetmap.nats.server import NatsServer
from jetmap.wire import subjects
from jetmap.wire.messages import Ping, encode
from jetmap.wire.presence import Presence
from jetmap.wire.protocol import PROTOCOL
from processes import HERE, cmdline, end, kill_if_there, nothing_left
from waiting import PATIENCE, wait_for, wait_until

FUNCTIONS = str(HERE / "functions.py")
CORES = 2  # Cores of an agent.


@dataclass
class AgentProcess:
    """``jetmap worker`` as a process of its own; its output goes to a file."""

    process: subprocess.Popen[bytes]
    output: Path
    mark: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        try:
            children = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        return [c for c in children if "jetmap.worker.main" in " ".join(cmdline(c))]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill_host(self) -> None:
        """Everything at once, as when the power goes."""
        for process in [psutil.Process(self.pid), *self.workers]:
            kill_if_there(process)

    def has_exited(self) -> bool:
        return self.process.poll() is not None


@dataclass
class Site:
    """A real nats-server, and agents and clusters that use it; all end with the site."""

    server: NatsServer
    mark: str
    place: Path
    agents: list[AgentProcess] = field(default_factory=list)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _connection: Connection | None = None

    async def connection(self) -> Connection:
        """One of the site's own."""
        if self._connection is None:
            auth = Auth(user=self.server.user, password=self.server.password)
            self._connection = await Connection.open(
                [self.server.url], name="site", auth=auth, timeout=PATIENCE
            )
            self.stack.push_async_callback(self._connection.close)
        return self._connection

    async def workers(self, cluster: Cluster) -> list[Presence]:
        """Return ``cluster.workers`` as announced after this call."""
        known = {p.agent: (id(p), p.now) for p in cluster.workers}
        ping = (subjects.control("default"), encode(Ping(PROTOCOL)))
        await (await self.connection()).publish(*ping)
        await wait_until(
            lambda: all((id(p), p.now) != known.get(p.agent) for p in cluster.workers),
            "agents announce",
        )
        return cluster.workers

    async def until_ready(self, cluster: Cluster, agent: AgentProcess) -> None:
        """Wait until every worker of the agent is ready."""

        async def there() -> bool:
            assert not agent.has_exited(), agent.said
            return not await self.workers(cluster) or is_ready(cluster, agent)

        await wait_for(there, "the agent is ready", show=lambda: agent.said)

    async def until_busy(self, cluster: Cluster, cores: int, seconds: float = PATIENCE) -> None:
        """Wait until this number of cores compute."""

        async def compute() -> bool:
            found = await self.workers(cluster)
            return sum(core.state == "busy" for p in found for core in p.workers) == cores

        await wait_for(compute, f"{cores} cores are busy", seconds, lambda: str(cluster.workers))

    async def cluster(self, **options: Any) -> Cluster:
        """A cluster of this process, started."""
        with patch("jetmap.nats.connection.CONNECT_SECONDS", PATIENCE):
            cluster = await Cluster.start(self.server.url, **options)
        self.stack.push_async_callback(cluster.aclose)
        return cluster

    def start_agent(
        self,
        tasks: str = FUNCTIONS,
        *options: str,
        cores: int = CORES,
        within: Sequence[str] = (),
        url: str | None = None,
    ) -> AgentProcess:
        """within: the command that runs it elsewhere."""
        output = self.place / f"agent-{len(self.agents)}.log"
        command = [
            *within,
            *(sys.executable, "-m", "jetmap.cli", "worker", tasks),
            *("--nats", url or self.server.url, "--cores", str(cores), *options),
        ]
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=self.place, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        agent = AgentProcess(process, output, self.mark)
        self.agents.append(agent)
        return agent

    async def agent(
        self, cluster: Cluster, tasks: str = FUNCTIONS, *options: str, **more: Any
    ) -> AgentProcess:
        """An agent whose workers are all ready, and which the cluster knows of."""
        agent = self.start_agent(tasks, *options, **more)
        await self.ready(cluster, agent)
        return agent

    async def two_agents(
        self, cluster: Cluster, *options: str
    ) -> tuple[AgentProcess, AgentProcess]:
        first = self.start_agent(FUNCTIONS, *options)
        second = self.start_agent(FUNCTIONS, *options)
        await self.ready(cluster, first, second)
        return first, second

    async def ready(self, cluster: Cluster, *agents: AgentProcess) -> None:
        for agent in agents:
            await wait_until(
                lambda agent=agent: is_ready(cluster, agent) or agent.has_exited(),
                "the agent is ready",
                show=lambda agent=agent: agent.said,
            )
            assert not agent.has_exited(), agent.said


def presence(cluster: Cluster, agent: AgentProcess) -> Presence | None:
    return next((p for p in cluster.workers if p.pid == agent.pid), None)


def is_ready(cluster: Cluster, agent: AgentProcess) -> bool:
    found = presence(cluster, agent)
    return found is not None and found.ready == found.cores


def account(cluster: Cluster) -> Ledger:
    """The ledger of the only map that is open."""
    (run,) = cluster._session.dispatcher._maps
    return run.ledger


@asynccontextmanager
async def site(
    place: Path, kind: type[NatsServer] = NatsServer, **options: Any
) -> AsyncIterator[Site]:
    """A server on a free port; at the end every process of the site must be gone.

    kind: of the server; options: what it is made with.
    """
    with nothing_left() as mark:
        server = kind(**options)
        await server.start()
        there = Site(server, mark, place)
        try:
            async with there.stack:
                yield there
        finally:
            for agent in there.agents:
                end(agent.process)
            await there.server.stop()


# Outcomes


async def outcomes(stream: Any, seen: Callable[[], None] = int) -> list[Outcome[Any, Any]]:
    """All of a stream, in the order of their items; each item exactly once.

    seen: called with each.
    """
    found = []
    async with stream:
        async for outcome in stream:
            found.append(outcome)
            seen()
    found.sort(key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in found] == list(range(len(found)))
    return found


def check(
    values: Sequence[Any],
    expected: Sequence[Any],
    failing: dict[int, type[ItemError]] | None = None,
) -> None:
    """Every item has exactly the outcome that it shall have.

    values: as ``map(…, return_exceptions=True)`` gives them. failing: the index of each item
    that shall fail, and how; at those ``expected`` does not matter.
    """
    failing = failing or {}
    assert len(values) == len(expected)
    errors = {i: v for i, v in enumerate(values) if isinstance(v, ItemError)}
    kinds = {i: type(error) for i, error in errors.items()}
    different = {i: kinds.get(i) for i in kinds.keys() ^ failing.keys()}
    first = next((str(errors[i]) for i in different if i in errors), "")
    assert kinds == failing, f"{len(different)} differ: {dict(list(different.items())[:5])} {first}"
    assert all(error.index == i for i, error in errors.items())
    wrong = [
        (i, got, want)
        for i, (got, want) in enumerate(zip(values, expected, strict=True))
        if i not in errors and got != want
    ]
    assert not wrong, f"{len(wrong)} values are wrong: {wrong[:5]}"


@dataclass(frozen=True)
class Start:
    """A line of ``functions.note``."""

    index: int
    at: float
    pid: int


def starts(log: Path) -> list[Start]:
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text().splitlines()]
    return [Start(int(index), float(at), int(pid)) for index, at, pid in lines]


def executions(log: Path) -> Counter[int]:
    """Count how many times each item was begun."""
    return Counter(start.index for start in starts(log))
