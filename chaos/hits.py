"""Hit the processes of a stage. Each hit is written down as a fault."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable

import psutil

from .children import Child
from .faults import Fault
from .network import Network
from .stage import GRACE, Stage

# Drawn for one fault: everything about it that is random.
Draw = random.Random
Hit = Callable[[Draw], Awaitable[Fault | None]]
RESTARTS = 60.0  # Seconds in which a gateway that ends at once is started again.
KILLERS_PATIENCE = 60.0  # Seconds that an item that kills its agents may be on its way.


class Hits:
    """jobs: jobs run, so the store is never lost, and all else can be at once. spaced: faults
    come one at a time; then frozen agents are so for longer than a guarantee waits. kinds: what
    there is; each returns its fault, or None where there is nobody to be hit."""

    def __init__(self, stage: Stage, *, jobs: bool, spaced: bool) -> None:
        self.faults: list[Fault] = []
        self.problems: list[str] = []
        self.callers_killed: set[str] = set()
        self._stage = stage
        self._spaced = spaced
        self._broker_busy = False
        self._pausing = False  # All are to be killed: nothing else begins.
        self._killer_until = 0.0  # An item that kills its agents is out until then.
        self.kinds: dict[str, Hit] = {
            "worker killed": self._kill_worker,
            "agent killed": lambda draw: self._kill_agent(draw, workers=True),
            "agent killed, not its workers": lambda draw: self._kill_agent(draw, workers=False),
            "agent killed by its item": self._send_killer,
            "agent restarted": self._restart_agent,
            "agent frozen": self._freeze_agent,
            "caller frozen": self._freeze_caller,
            "caller killed": self._kill_caller,
            "gateway frozen": self._freeze_gateway,
            "gateway killed": self._kill_gateway,
        }
        if stage.nodes == 1:
            self.kinds |= {
                "broker restarted, store kept": self._kill_broker,
                "broker stopped gently": self._stop_broker,
                "broker frozen": self._freeze_broker,
            }
            if jobs:
                self.kinds["everything killed"] = self._kill_everything
            else:
                self.kinds["broker restarted, store lost"] = self._empty_broker
                self.kinds["work stream full"] = self._fill
        else:
            self.kinds |= {
                "leader killed": self._kill_leader,
                "leader stopped gently": self._stop_leader,
                "leader frozen": self._freeze_leader,
            }
        if stage.network is not None:
            self.kinds["network cut"] = lambda draw: self._cut_agent(draw, "network cut", 5.0)
        if stage.callers_network is not None:
            self.kinds["caller cut off"] = self._cut_caller

    def _note(
        self,
        kind: str,
        text: str = "",
        *,
        agent: int | None = None,
        worker: int | None = None,
        caller: str | None = None,
    ) -> Fault:
        fault = Fault(kind, time.monotonic(), agent=agent, worker=worker, caller=caller, text=text)
        fault.spaced = self._spaced
        self.faults.append(fault)
        return fault

    # Agents

    def _agent(self, draw: Draw, *, far: bool = False) -> Child | None:
        """One that no fault has in its hands, if another such is left."""
        number = draw.random()
        free = [a for a in self._stage.agents if not a.busy and a.alive]
        if len(free) < 2 or self._pausing:
            return None
        agents = [a for a in free if a.far or not far]
        return agents[int(number * len(agents))] if agents else None

    async def _kill_worker(self, draw: Draw) -> Fault | None:
        agent = self._agent(draw)
        workers = agent.workers() if agent else []
        if agent is None or not workers:
            return None
        victim = workers[int(draw.random() * len(workers))]
        if self._spaced:
            victim = max(workers, key=lambda w: self._stage.last_note(w.pid))  # It computes.
        fault = self._note("worker killed", agent.name, agent=agent.pid, worker=victim.pid)
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            self.faults.remove(fault)
        fault.ended = time.monotonic()
        return fault

    async def _kill_agent(self, draw: Draw, *, workers: bool) -> Fault | None:
        """workers: with them and what they started, as when their host dies."""
        agent = self._agent(draw)
        if agent is None:
            return None
        agent.busy = True
        victims = agent.workers(all=True)
        kind = "agent killed" if workers else "agent killed, not its workers"
        fault = self._note(kind, agent.name, agent=agent.pid)
        agent.signal(signal.SIGKILL)
        if workers:
            for victim in victims:
                try:
                    victim.kill()
                except psutil.NoSuchProcess:
                    pass  # it went with its agent
        await agent.ended(5)
        fault.ended = time.monotonic()
        self._stage.replaced(agent)
        await asyncio.sleep(draw.uniform(0, 3))  # The host is away.
        self._stage.start_agent(agent.far)
        return fault

    async def _send_killer(self, draw: Draw) -> Fault | None:
        """An item that kills its agent; where faults may meet, every agent that it comes to."""
        caller = self._caller(draw)
        if caller is None or self._pausing or time.monotonic() < self._killer_until:
            return None
        before = len(self.faults)
        self._killer_until = time.monotonic() + KILLERS_PATIENCE
        caller.tell("o" if self._spaced else "k")
        while self._spaced and time.monotonic() < self._killer_until:
            if len(self.faults) > before:
                return self.faults[before]
            await asyncio.sleep(0.02)
        return None

    async def tend(self) -> None:
        """Replaces agents that end by themselves: their item's doing, or a problem."""
        while True:
            await asyncio.sleep(0.02)
            for agent in list(self._stage.agents):
                if agent.alive or agent.busy or self._pausing:
                    continue
                if not self._killed_by_item(agent):
                    code = agent.process.returncode
                    self.problems.append(f"{agent.name} ended by itself, with {code}")
                self._stage.replaced(agent)
                self._stage.start_agent(agent.far)

    def _killed_by_item(self, agent: Child) -> bool:
        """Note a fault if an item has killed this agent; return whether it has."""
        killed = agent.process.returncode == -signal.SIGKILL
        if not killed or not self._stage.was_killed_by_item(agent):
            return False
        fault = self._note("agent killed by its item", agent.name, agent=agent.pid)
        fault.ended = fault.began
        return True

    async def _restart_agent(self, draw: Draw) -> Fault | None:
        agent = self._agent(draw)
        if agent is None:
            return None
        agent.busy = True
        self._stage.start_agent(agent.far)
        await asyncio.sleep(2)  # Both run for a while, as in a rolling restart.
        fault = self._note("agent restarted", agent.name, agent=agent.pid)
        agent.signal(signal.SIGTERM)
        code = await agent.ended(GRACE + 10)
        fault.ended = time.monotonic()
        if code != 0 and not self._killed_by_item(agent):
            self.problems.append(
                f"{agent.name} after SIGTERM: exit code {code} in {fault.ended - fault.began:.1f} s"
            )
            agent.signal(signal.SIGKILL)
            await agent.ended(5)
        self._stage.replaced(agent)
        return fault

    async def _freeze_agent(self, draw: Draw) -> Fault | None:
        agent = self._agent(draw)
        if agent is None:
            return None
        seconds = draw.uniform(22, 25) if self._spaced else draw.uniform(1, 15)
        fault = self._note("agent frozen", agent.name, agent=agent.pid)
        return await self._freeze(agent, fault, seconds)

    async def _cut_agent(self, draw: Draw, kind: str, seconds: float) -> Fault | None:
        agent, network = self._agent(draw, far=True), self._stage.network
        if agent is None or network is None:
            return None
        return await self._cut(
            network, agent, self._note(kind, agent.name, agent=agent.pid), seconds
        )

    async def cut_for_long(self, draw: Draw) -> Fault | None:
        """Cut an agent's network for up to a minute."""
        return await self._cut_agent(draw, "network cut for long", draw.uniform(30, 60))

    async def _cut(self, network: Network, child: Child, fault: Fault, seconds: float) -> Fault:
        child.busy = True
        fault.text += f" {seconds:.1f} s"
        network.cut()
        try:
            await asyncio.sleep(seconds)  # It is cut.
        finally:
            network.mend()
            fault.ended = time.monotonic()
            child.busy = False
        return fault

    # Callers

    def _caller(self, draw: Draw, *, far: bool = False) -> Child | None:
        number = draw.random()
        callers = [c for c in self._stage.callers if self._stage.has_begun(c.name)]
        free = [c for c in callers if not c.busy and c.alive and (c.far or not far)]
        return free[int(number * len(free))] if free else None

    async def _freeze_caller(self, draw: Draw) -> Fault | None:
        caller = self._caller(draw)
        if caller is None:
            return None
        fault = self._note("caller frozen", caller.name, caller=caller.name)
        return await self._freeze(caller, fault, draw.uniform(1, 15))

    async def _cut_caller(self, draw: Draw) -> Fault | None:
        caller, network = self._caller(draw, far=True), self._stage.callers_network
        if caller is None or network is None:
            return None
        fault = self._note("caller cut off", caller.name, caller=caller.name)
        return await self._cut(network, caller, fault, draw.uniform(5, 15))

    async def _kill_caller(self, draw: Draw) -> Fault | None:
        caller = self._caller(draw)
        if caller is None:
            return None
        caller.busy = True
        fault = self._note("caller killed", caller.name, caller=caller.name)
        self.callers_killed.add(caller.name)
        caller.signal(signal.SIGKILL)
        await caller.ended(5)
        fault.ended = time.monotonic()
        self._stage.replaced(caller)
        self._stage.start_caller(caller.kind, far=caller.far)
        return fault

    def _gateway(self, draw: Draw) -> int | None:
        """The number of one that no fault has in its hands."""
        number = draw.random()
        gateways = self._stage.gateways
        free = [n for n, gateway in enumerate(gateways) if not gateway.busy]
        return free[int(number * len(free))] if free and not self._pausing else None

    async def _freeze_gateway(self, draw: Draw) -> Fault | None:
        number = self._gateway(draw)
        if number is None:
            return None
        fault = self._note("gateway frozen", caller="gateway")
        return await self._freeze(self._stage.gateways[number], fault, draw.uniform(1, 15))

    async def _kill_gateway(self, draw: Draw) -> Fault | None:
        number = self._gateway(draw)
        if number is None:
            return None
        gateway = self._stage.gateways[number]
        gateway.busy = True
        fault = self._note("gateway killed", caller="gateway")
        gateway.signal(signal.SIGKILL)
        await gateway.ended(5)
        self._stage.replaced(gateway)
        deadline = time.monotonic() + RESTARTS
        while True:
            started = self._stage.start_gateway(number)
            started.busy = True
            try:
                await self._stage.gateway_ready(number)
                break
            except Exception:
                # It found no broker, and ended; whoever supervises it starts it again.
                if started.alive or time.monotonic() > deadline:
                    raise
                self._stage.replaced(started)
            finally:
                started.busy = False
        fault.ended = time.monotonic()
        return fault

    # Everything

    def _is_busy(self) -> bool:
        children = [*self._stage.agents, *self._stage.gateways]
        return self._broker_busy or any(child.busy for child in children)

    async def _kill_everything(self, draw: Draw) -> Fault | None:
        """All gateways, all agents and the broker; then a cold start from what is on its disk."""
        away = draw.uniform(0, 3)
        if self._pausing:
            return None
        self._pausing = True
        try:
            # What is under way comes to its end; nothing new begins.
            while self._is_busy():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            fault = self._note("everything killed")
            await self._stage.kill_everything(away)
            fault.ended = time.monotonic()
        finally:
            self._pausing = False
        return fault

    # The broker

    async def _kill_broker(self, draw: Draw) -> Fault | None:
        return await self._restart_broker(draw, "broker restarted, store kept", signal.SIGKILL)

    async def _empty_broker(self, draw: Draw) -> Fault | None:
        return await self._restart_broker(draw, "broker restarted, store lost", signal.SIGKILL)

    async def _stop_broker(self, draw: Draw) -> Fault | None:
        return await self._restart_broker(draw, "broker stopped gently", signal.SIGTERM)

    async def _restart_broker(self, draw: Draw, kind: str, how: signal.Signals) -> Fault | None:
        if self._broker_busy or self._pausing:
            return None
        self._broker_busy = True
        fault = self._note(kind)
        try:
            await self._stage.kill_broker(how)
            await asyncio.sleep(draw.uniform(0, 3))  # The broker is away.
            await self._stage.restart_broker(kept="lost" not in kind)
        finally:
            fault.ended = time.monotonic()
            self._broker_busy = False
        return fault

    async def _freeze_broker(self, draw: Draw) -> Fault | None:
        if self._broker_busy or self._pausing:
            return None
        self._broker_busy = True
        seconds = draw.uniform(2, 12)
        fault = self._note("broker frozen", f"{seconds:.1f} s")
        self._stage.signal_broker(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)  # It is frozen.
        finally:
            self._stage.signal_broker(signal.SIGCONT)
            fault.ended = time.monotonic()
            self._broker_busy = False
        return fault

    async def _fill(self, draw: Draw) -> Fault | None:
        if self._broker_busy or self._pausing:
            return None
        self._broker_busy = True
        fault = self._note("work stream full")
        try:
            fault.text = f"{await self._stage.fill(draw.uniform(2, 6))} messages"
        finally:
            fault.ended = time.monotonic()
            self._broker_busy = False
        return fault

    async def _kill_leader(self, draw: Draw) -> Fault | None:
        return await self._hit_leader("leader killed", signal.SIGKILL, draw.uniform(0.5, 6))

    async def _stop_leader(self, draw: Draw) -> Fault | None:
        return await self._hit_leader("leader stopped gently", signal.SIGUSR2, draw.uniform(10, 14))

    async def _freeze_leader(self, draw: Draw) -> Fault | None:
        return await self._hit_leader("leader frozen", signal.SIGSTOP, draw.uniform(2, 12))

    async def _hit_leader(self, kind: str, how: signal.Signals, seconds: float) -> Fault | None:
        if self._broker_busy or self._pausing:
            return None
        self._broker_busy = True
        try:
            leader = await self._stage.leader()
            if leader < 0:
                return None
            fault = self._note(kind, f"node-{leader}")
            self._stage.signal_node(leader, how)
            await asyncio.sleep(seconds)  # The others elect a leader, or not yet.
            if how == signal.SIGSTOP:
                self._stage.signal_node(leader, signal.SIGCONT)
            else:
                await self._stage.restart_node(leader)
            fault.ended = time.monotonic()
        finally:
            self._broker_busy = False
        return fault

    async def _freeze(self, child: Child, fault: Fault, seconds: float) -> Fault:
        child.busy = True
        fault.text += f" {seconds:.1f} s"
        child.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)  # It is frozen.
        finally:
            child.signal(signal.SIGCONT)
            fault.ended = time.monotonic()
            child.busy = False
        return fault
