"""The faults: which, to whom and when comes from the seed; each is written down."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable

import psutil

from .executions import Fault
from .stage import GRACE, Child, Stage

MEAN_GAP = 2.5  # Seconds between faults; some last longer and so overlap.
FREEZE = (1.0, 15.0)
CUT_SECONDS = 5.0


class Injector:
    """Hits one stage. only: faults whose name holds one of these; None: all. jobs: jobs run, so
    the store is never lost, and all else can be at once. problems: what did not go as it should
    meanwhile."""

    def __init__(
        self,
        stage: Stage,
        rng: random.Random,
        only: list[str] | None = None,
        *,
        jobs: bool = False,
    ) -> None:
        self.faults: list[Fault] = []
        self.problems: list[str] = []
        self.callers_killed: set[str] = set()
        self._stage = stage
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._broker_busy = False
        self._pausing = False  # All are to be killed: nothing else begins.
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": self._kill_worker,
            "agent killed": self._kill_agent,
            "agent restarted": self._restart_agent,
            "agent frozen": self._freeze_agent,
            "caller frozen": self._freeze_caller,
            "caller killed": self._kill_caller,
            "gateway frozen": self._freeze_gateway,
            "gateway killed": self._kill_gateway,
        }
        if jobs:
            kinds |= {
                "broker restarted, store kept": lambda: self._restart_broker(True),
                "everything killed": self._kill_everything,
            }
        elif stage.nodes == 1:
            kinds |= {
                "broker restarted, store kept": lambda: self._restart_broker(True),
                "broker restarted, store lost": lambda: self._restart_broker(False),
            }
        else:
            kinds["leader killed"] = self._kill_leader
        if stage.network is not None:
            kinds["network cut"] = self._cut_network
        self._kinds = {
            kind: hit
            for kind, hit in kinds.items()
            if only is None or any(text in kind for text in only)
        }

    async def run(self, seconds: float) -> None:
        """Every kind in a random order, then again in another, until the time is over."""
        deadline = time.monotonic() + seconds
        deck: list[str] = []
        while True:
            gap = min(12.0, 0.3 + self._rng.expovariate(1 / MEAN_GAP))
            if time.monotonic() + gap > deadline:
                break
            await asyncio.sleep(gap)  # Nothing goes wrong.
            if not deck:
                deck = list(self._kinds)
                self._rng.shuffle(deck)
            self._start(deck.pop())
        await asyncio.gather(*self._tasks)

    def _start(self, kind: str) -> None:
        async def guarded() -> None:
            try:
                await self._kinds[kind]()
            except Exception as error:
                self.problems.append(f"{kind}: {type(error).__name__}: {error}")

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note(self, kind: str, text: str = "", **fields: int | str | None) -> Fault:
        fault = Fault(kind, time.monotonic(), text=text, **fields)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    # Agents

    def _agent(self, *, far: bool = False) -> Child | None:
        """One that no fault has in its hands, if another such is left."""
        free = [a for a in self._stage.agents if not a.busy and a.alive]
        if len(free) < 2 or self._pausing:
            return None
        agents = [a for a in free if a.far == far or not far]
        return self._rng.choice(agents) if agents else None

    async def _kill_worker(self) -> None:
        agent = self._agent()
        workers = agent.workers() if agent else []
        if agent is None or not workers:
            return
        victim = self._rng.choice(workers)
        fault = self._note("worker killed", agent.name, agent=agent.pid, worker=victim.pid)
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            self.faults.remove(fault)
        fault.ended = time.monotonic()

    async def _kill_agent(self) -> None:
        agent = self._agent()
        if agent is None:
            return
        agent.busy = True
        workers = agent.workers()
        fault = self._note("agent killed", agent.name, agent=agent.pid)
        agent.signal(signal.SIGKILL)
        for worker in workers:
            try:
                worker.kill()
            except psutil.NoSuchProcess:
                pass  # it went with its agent
        await agent.ended(5)
        fault.ended = time.monotonic()
        self._stage.replaced(agent)
        await asyncio.sleep(self._rng.uniform(0, 3))  # The host is away.
        self._stage.start_agent(agent.far)

    async def _restart_agent(self) -> None:
        agent = self._agent()
        if agent is None:
            return
        agent.busy = True
        self._stage.start_agent(agent.far)
        await asyncio.sleep(2)  # Both run for a while, as in a rolling restart.
        fault = self._note("agent restarted", agent.name, agent=agent.pid)
        agent.signal(signal.SIGTERM)
        code = await agent.ended(GRACE + 10)
        fault.ended = time.monotonic()
        if code != 0:
            self.problems.append(
                f"{agent.name} after SIGTERM: exit code {code} in {fault.ended - fault.began:.1f} s"
            )
            agent.signal(signal.SIGKILL)
            await agent.ended(5)
        self._stage.replaced(agent)

    async def _freeze_agent(self) -> None:
        if (agent := self._agent()) is not None:
            await self._freeze(agent, self._note("agent frozen", agent.name, agent=agent.pid))

    async def _cut_network(self) -> None:
        agent, network = self._agent(far=True), self._stage.network
        if agent is None or network is None or not agent.far:
            return
        agent.busy = True
        fault = self._note("network cut", agent.name, agent=agent.pid)
        network.cut()
        await asyncio.sleep(CUT_SECONDS)  # It is cut.
        network.mend()
        fault.ended = time.monotonic()
        agent.busy = False

    # Callers

    def _caller(self) -> Child | None:
        free = [c for c in self._stage.callers if not c.busy and c.alive]
        return self._rng.choice(free) if free else None

    async def _freeze_caller(self) -> None:
        if (caller := self._caller()) is not None:
            await self._freeze(caller, self._note("caller frozen", caller.name, caller=caller.name))

    async def _kill_caller(self) -> None:
        caller = self._caller()
        if caller is None:
            return
        caller.busy = True
        fault = self._note("caller killed", caller.name, caller=caller.name)
        self.callers_killed.add(caller.name)
        caller.signal(signal.SIGKILL)
        await caller.ended(5)
        fault.ended = time.monotonic()
        self._stage.replaced(caller)
        self._stage.start_caller(caller.kind)

    def _gateway(self) -> int | None:
        """The number of one that no fault has in its hands."""
        gateways = self._stage.gateways
        free = [number for number, gateway in enumerate(gateways) if not gateway.busy]
        return self._rng.choice(free) if free and not self._pausing else None

    async def _freeze_gateway(self) -> None:
        if (number := self._gateway()) is not None:
            fault = self._note("gateway frozen", caller="gateway")
            await self._freeze(self._stage.gateways[number], fault)

    async def _kill_gateway(self) -> None:
        number = self._gateway()
        if number is None:
            return
        gateway = self._stage.gateways[number]
        gateway.busy = True
        fault = self._note("gateway killed", caller="gateway")
        gateway.signal(signal.SIGKILL)
        await gateway.ended(5)
        self._stage.replaced(gateway)
        started = self._stage.start_gateway(number)
        started.busy = True
        await self._stage.gateway_ready(number)
        fault.ended = time.monotonic()
        started.busy = False

    def _is_busy(self) -> bool:
        children = [*self._stage.agents, *self._stage.gateways]
        return self._broker_busy or any(child.busy for child in children)

    async def _kill_everything(self) -> None:
        """All gateways, all agents and the broker; then a cold start from what is on its disk."""
        stage = self._stage
        if self._pausing:
            return
        self._pausing = True
        try:
            # What is under way comes to its end; nothing new begins.
            while self._is_busy():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            fault = self._note("everything killed")
            agents, gateways = list(stage.agents), list(stage.gateways)
            for child in [*agents, *gateways]:
                child.signal(signal.SIGKILL)
            await stage.kill_broker()
            for child in [*agents, *gateways]:
                await child.ended(5)
            await asyncio.sleep(self._rng.uniform(0, 3))  # The broker is away.
            await stage.restart_broker(kept=True)
            started = []
            for agent in agents:
                stage.replaced(agent)
                started.append(stage.start_agent(agent.far))
            for number, gateway in enumerate(gateways):
                stage.ended.append(gateway)
                stage.start_gateway(number)
            for number in range(len(gateways)):
                await stage.gateway_ready(number)
            # An agent that has not begun yet knows no SIGTERM.
            while any(agent.alive and not agent.workers() for agent in started):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            fault.ended = time.monotonic()
        finally:
            self._pausing = False

    # The broker

    async def _restart_broker(self, kept: bool) -> None:
        if self._broker_busy or self._pausing:
            return
        self._broker_busy = True
        stage = self._stage
        fault = self._note(f"broker restarted, store {'kept' if kept else 'lost'}")
        try:
            await stage.kill_broker()
            await asyncio.sleep(self._rng.uniform(0, 3))  # The broker is away.
            await stage.restart_broker(kept=kept)
        finally:
            fault.ended = time.monotonic()
            self._broker_busy = False

    async def _kill_leader(self) -> None:
        if self._broker_busy or self._pausing:
            return
        self._broker_busy = True
        try:
            leader = await self._stage.leader()
            if leader < 0:
                return
            fault = self._note("leader killed", f"node-{leader}")
            self._stage.kill_node(leader)
            await asyncio.sleep(self._rng.uniform(0.5, 6))  # The others elect a leader, or not yet.
            await self._stage.restart_node(leader)
            fault.ended = time.monotonic()
        finally:
            self._broker_busy = False

    async def _freeze(self, child: Child, fault: Fault) -> None:
        child.busy = True
        seconds = self._rng.uniform(*FREEZE)
        fault.text += f" {seconds:.1f} s"
        child.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)  # It is frozen.
        finally:
            child.signal(signal.SIGCONT)
            fault.ended = time.monotonic()
            child.busy = False
