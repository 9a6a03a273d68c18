"""The processes of a soak: brokers, agents, a gateway, callers. Each can be hit, and replaced."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from jetmap.nats.connection import Auth, Connection
from jetmap.nats.server import NatsServer, find_binary

from .children import Child, answers, free_port, get
from .network import Network

HERE = Path(__file__).parent
ROOT = HERE.parent
GRACE = 10.0
FILLER = "jetmap.work.default.filler.soak"
MAX_MESSAGES = 300  # Messages that the work stream takes: few, so that it can be filled.
# For all that the soak starts: small limits, so that they are met.
SETTINGS = {
    "JETMAP_WORK_MAX_MESSAGES": str(MAX_MESSAGES),
    "JETMAP_VERSION": "soak",  # also where its files change meanwhile, and workers are recycled
    "JETMAP_WORKER_MEMORY": "2GiB",
    "JETMAP_MAX_BUFFER_BYTES": "128KiB",
}
FAMILIES = {"caller": "library", "web": "http", "jobs": "job", "webjobs": "job-http"}
# Agents replace their workers all the time, for one reason, the other or none.
RECYCLING: list[list[str]] = [[], ["--recycle-chunks", "40"], ["--recycle-age", "6"]]


@dataclass
class Stage:
    """place: a directory of this stage's own. nodes: how many nats-servers. network: of an agent;
    callers_network: of a caller. label: of its processes' names. gateways_wanted: how many.
    spaced: its maps are those for faults that strike one at a time."""

    place: Path
    seed: int
    nodes: int
    network: Network | None
    label: str = ""
    gateways_wanted: int = 1
    callers_network: Network | None = None
    spaced: bool = False
    CORES: ClassVar[int] = 2  # workers of an agent

    agents: list[Child] = field(default_factory=list)
    callers: list[Child] = field(default_factory=list)
    ended: list[Child] = field(default_factory=list)
    gateways: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = self.network.near if self.network else "127.0.0.1"
        self.data = self.place / "data"  # what callers and functions write down
        self.logs = self.place / "logs"
        for directory in (self.data, self.logs):
            directory.mkdir(parents=True)
        self.store = self.place / "store-0"
        self._password = secrets.token_hex(16)
        self._ports = [free_port(self.host) for _ in range(3 * self.nodes)]
        self._gateway_ports = [free_port("127.0.0.1") for _ in range(self.gateways_wanted)]
        self._server: NatsServer | None = None
        self._servers: list[Child] = []
        self._numbers: dict[str, int] = {}

    @property
    def url(self) -> str:
        return ",".join(f"nats://{self.host}:{port}" for port in self._ports[: self.nodes])

    # The broker

    async def start_broker(self) -> None:
        if self.nodes == 1:
            self._server = self._single()
            await self._server.start()
            return
        self._servers = [self._node(n) for n in range(self.nodes)]
        await asyncio.gather(*(self.node_ready(n) for n in range(self.nodes)))

    def signal_broker(self, number: signal.Signals) -> None:
        assert self._server is not None and self._server.pid is not None
        os.kill(self._server.pid, number)

    async def kill_broker(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self._server is not None
        self.signal_broker(how)
        try:
            await asyncio.wait_for(self._server.wait(), 15)
        except TimeoutError:
            self.signal_broker(signal.SIGKILL)
            await self._server.wait()

    async def restart_broker(self, *, kept: bool) -> None:
        assert self._server is not None
        await self._server.stop()
        if not kept:
            self.store = self.place / f"store-{time.monotonic_ns()}"
        self._server = self._single()
        await self._server.start()

    def _single(self) -> NatsServer:
        return NatsServer(
            host=self.host,
            port=self._ports[0],
            store=self.store,
            user="jetmap",
            password=self._password,
        )

    def _node(self, number: int) -> Child:
        ports = self._ports
        peers = [f"{self.host}:{port}" for port in ports[self.nodes : 2 * self.nodes]]
        environment = {
            "NATS_PASSWORD": self._password,
            "NATS_NAME": f"node-{number}",
            "NATS_LISTEN": f"{self.host}:{ports[number]}",
            "NATS_CLUSTER_LISTEN": peers[number],
            "NATS_MONITOR": f"{self.host}:{ports[2 * self.nodes + number]}",
            "NATS_STORE": str(self.place / f"store-{number}"),
            "NATS_PEERS": " ".join(peers),
            "NATS_SERVER": find_binary(),
        }
        return self._start("node", [str(ROOT / "config/nats/start")], environment)

    async def node_ready(self, number: int, timeout: float = 40) -> None:
        monitor = f"http://{self.host}:{self._ports[2 * self.nodes + number]}/healthz"
        await answers(monitor, timeout, self._servers[number])

    async def leader(self) -> int:
        """The number of the node that leads the work stream; -1: nobody does now."""
        for number in range(self.nodes):
            port = self._ports[2 * self.nodes + number]
            body = await get(f"http://{self.host}:{port}/jsz?streams=1")
            for account in (msgspec.json.decode(body) if body else {}).get("account_details", []):
                for stream in account.get("stream_detail", []):
                    if stream["name"].startswith("JETMAP_WORK"):
                        name = stream.get("cluster", {}).get("leader", "")
                        if name:
                            return int(name.rpartition("-")[2])
        return -1

    async def _connection(self) -> Connection:
        return await Connection.open(
            self.url.split(","), name="soak", auth=Auth(user="jetmap", password=self._password)
        )

    async def waiting(self, *streams: str) -> int:
        """Messages in these streams; chunks in the work stream."""
        connection = await self._connection()
        try:
            left = 0
            for stream in streams or ("WORK",):
                info = await connection.api(f"STREAM.INFO.JETMAP_{stream}_default")
                left += int(info["state"]["messages"])
            return left
        finally:
            await connection.close()

    async def fill(self, seconds: float) -> int:
        """Keep the work stream full for some seconds, with messages that nobody takes.

        Afterwards they are removed. Returns how many there were at most.
        """
        connection = await self._connection()
        at_most = number = 0
        try:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                for _ in range(MAX_MESSAGES):
                    number += 1
                    await connection.publish(f"{FILLER}.{number}", b"")
                await connection.flush()
                info = await connection.api("STREAM.INFO.JETMAP_WORK_default")
                at_most = max(at_most, int(info["state"]["messages"]))
                await asyncio.sleep(0.02)
        finally:
            await connection.api("STREAM.PURGE.JETMAP_WORK_default", {"filter": f"{FILLER}.>"})
            await connection.close()
        return at_most

    def signal_node(self, number: int, how: signal.Signals) -> None:
        self._servers[number].signal(how)

    async def restart_node(self, number: int, patience: float = 5) -> None:
        if await self._servers[number].ended(patience) is None:
            self._servers[number].signal(signal.SIGKILL)
            await self._servers[number].ended(5)
        self._servers[number] = self._node(number)
        await self.node_ready(number)

    async def kill_everything(self, away: float) -> None:
        """All gateways, all agents and the broker; then they are started again, from what is on
        its disk. away: seconds that the broker is."""
        agents, gateways = list(self.agents), list(self.gateways)
        for child in [*agents, *gateways]:
            child.signal(signal.SIGKILL)
        await self.kill_broker()
        for child in [*agents, *gateways]:
            await child.ended(5)
        await asyncio.sleep(away)
        await self.restart_broker(kept=True)
        started = []
        for agent in agents:
            self.replaced(agent)
            started.append(self.start_agent(agent.far))
        for number, gateway in enumerate(gateways):
            self.ended.append(gateway)
            self.start_gateway(number)
        for number in range(len(gateways)):
            await self.gateway_ready(number)
        # An agent that has not begun yet knows no SIGTERM.
        while any(agent.alive and not agent.workers() for agent in started):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    # What was written down

    def has_begun(self, caller: str) -> bool:
        """Return whether it has a map; before, it may not reach the broker at all, and end."""
        file = self.data / f"{caller}.maps"
        return file.exists() and file.stat().st_size > 0

    def was_killed_by_item(self, agent: Child) -> bool:
        return (self.data / f"{agent.pid}.killed").exists()

    def last_note(self, worker: int) -> float:
        """Return the time at which this worker began its last item, by its file; 0: never."""
        files = self.data.glob(f"*-{worker}-*.runs")
        return max((noted(file) for file in files), default=0.0)

    def noted_last(self) -> dict[int, float]:
        """Return when a worker of each agent last began an item, by the agent's pid."""
        last: dict[int, float] = {}
        for file in self.data.glob("*.runs"):
            agent = int(file.name.partition("-")[0])
            last[agent] = max(last.get(agent, 0.0), noted(file))
        return last

    # Agents, the gateway, callers

    def start_agent(self, far: bool = False) -> Child:
        """far: where the network can be cut."""
        within = self.network.command if far and self.network else []
        command = [
            *within,
            *(sys.executable, "-m", "jetmap.cli", "worker", str(HERE / "functions.py")),
            *("--nats", self.url, "--cores", str(self.CORES), "--grace", str(GRACE)),
            # What a first call that hangs has on top of its timeout, once for each function.
            *("--start-timeout", "15"),
            *RECYCLING[self._numbers.get("agent", 0) % len(RECYCLING)],
        ]
        agent = self._start("agent", command)
        agent.far = bool(within)
        self.agents.append(agent)
        return agent

    def start_gateway(self, number: int = 0) -> Child:
        """The one of this number, new or in the place of one that has ended."""
        command = [sys.executable, "-m", "jetmap.cli", "api", "--nats", self.url]
        gateway = self._start("gateway", [*command, "--port", str(self._gateway_ports[number])])
        self.gateways[number : number + 1] = [gateway]
        return gateway

    async def gateway_ready(self, number: int = 0) -> None:
        await answers(f"{self._gateway_url(number)}/readyz", 60, self.gateways[number])

    def _gateway_url(self, number: int = 0) -> str:
        return f"http://127.0.0.1:{self._gateway_ports[number]}"

    def start_caller(self, kind: str, at_once: int = 3, *, far: bool = False) -> Child:
        """kind: caller (the library) or web, for maps; jobs or webjobs. far: where the network
        can be cut."""
        name = self._name(kind)
        urls = ",".join(self._gateway_url(n) for n in range(self.gateways_wanted))
        url = urls if kind.startswith("web") else self.url
        family = ("spaced-" if self.spaced else "") + FAMILIES[kind]
        arguments: list[Any] = [family, url, name, self.seed, str(self.data), at_once]
        module = "jobs" if kind.endswith("jobs") else kind
        command = [sys.executable, "-m", f"chaos.{module}", msgspec.json.encode(arguments).decode()]
        if far and self.callers_network:
            command = [*self.callers_network.command, *command]
        child = self._start(kind, command, name=name, stdin=subprocess.PIPE)
        child.far = far and self.callers_network is not None
        self.callers.append(child)
        return child

    def start_auditor(self) -> Child:
        arguments = msgspec.json.encode([self._gateway_url(), str(self.data)]).decode()
        child = self._start("auditor", [sys.executable, "-m", "chaos.auditor", arguments])
        self.ended.append(child)
        return child

    def replaced(self, child: Child) -> None:
        """The child has ended, as it should."""
        for group in (self.agents, self.callers):
            if child in group:
                group.remove(child)
        self.ended.append(child)

    async def close(self) -> None:
        """End everything that is still there."""
        children = [*self.callers, *self.agents, *self._servers]
        children += self.gateways
        for child in children:
            child.signal(signal.SIGCONT)
            child.signal(signal.SIGTERM)
        for child in children:
            if await child.ended(GRACE + 5) is None:
                child.signal(signal.SIGKILL)
                await child.ended(5)
        if self._server is not None:
            await self._server.stop()

    def _start(
        self,
        kind: str,
        command: list[str],
        environment: dict[str, str] | None = None,
        *,
        name: str = "",
        stdin: int = subprocess.DEVNULL,
    ) -> Child:
        name = name or self._name(kind)
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self.place,
                env={
                    **os.environ,
                    **SETTINGS,
                    "JETMAP_NATS_USER": "jetmap",
                    "JETMAP_NATS_PASSWORD": self._password,
                    "PYTHONPATH": os.pathsep.join(
                        filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])
                    ),
                    **(environment or {}),
                },
                stdin=stdin,
                stdout=output,
                stderr=output,
            )
        return Child(name, process, log, kind=kind)

    def _name(self, kind: str) -> str:
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        return f"{kind}{self.label}-{self._numbers[kind]}"


def noted(file: Path) -> float:
    """Return the time of the last write, by the monotonic clock."""
    return time.monotonic() - (time.time() - file.stat().st_mtime)
