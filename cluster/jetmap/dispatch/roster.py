"""The roster of a pool: agents, their offers and cores, as announced. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jetmap.wire.counts import PoolCounts
from jetmap.wire.messages import FunctionRef
from jetmap.wire.presence import FunctionInfo, Presence, differ_in_time, loader_home, time_of
from jetmap.wire.protocol import PICKLES_PROTOCOL, understands
from jetmap.wire.seals import Sealer
from jetmap.wire.timing import GONE_AFTER
from jetmap.wire.versions import pickles_of

VANISHED_KEPT = 600.0  # Seconds for which an agent that went silent is remembered.


@dataclass(frozen=True)
class FunctionStatus:
    """A function and the agents that offer it.

    Attributes:
        alive: Whether a worker that has the function is ready.
    """

    info: FunctionInfo
    agents: list[str]
    cores: int
    alive: bool


class Roster:
    """The agents of a pool. Times are seconds of one monotonic clock, passed in by the caller.

    Args:
        sealer: Seals the chunks that bring their function, and names the offer that takes them,
            which changes with each start of that `jetmap up`; None: chunks are not sealed.

    Attributes:
        changes: Number of changes so far to what agents there are, and what they can do.
    """

    def __init__(self, sealer: Sealer | None = None) -> None:
        self.sealer = sealer
        self._agents: dict[str, Presence] = {}
        self._heard: dict[str, float] = {}
        self._data: dict[str, bytes] = {}  # The latest announcements that end with a time.
        self._offers: dict[str, FunctionOffers] = {}
        self._cores: dict[str, int] = {}
        self._spoken: dict[int, bool] = {}
        self._brought: dict[tuple[str, str, bool, str, bool], str | None] = {}
        self._shares: dict[str, tuple[int, int]] = {}  # What each agent adds to these sums:
        self._all_cores = 0
        self._core_micros = 0  # Round trips of all cores, in µs.
        self.changes = 0
        self.vanished: dict[str, float] = {}  # When each agent that said no goodbye was missed.
        self._counts = PoolCounts()

    def on_presence(self, presence: Presence, now: float, data: bytes = b"") -> None:
        """Process an announcement. data: the message that it was, if others may differ in time."""
        agent = presence.agent
        known = self._agents.get(agent)
        if presence.gone:
            self._count(presence)
            self._forget(agent)
        else:
            self._agents[agent] = presence
            self.vanished.pop(agent, None)
            self._heard[agent] = now
            if presence.now:
                self._data[agent] = data
            self._weigh(agent, presence)
        if known is None or presence.gone or _abilities(known) != _abilities(presence):
            self._changed()

    def on_repeated(self, agent: str, data: bytes, now: float) -> Presence | None:
        """Process an announcement that says what the agent's latest did, but at a later time.

        Returns None if it says something else: it must be read.
        """
        last = self._data.get(agent)
        if last is None or not differ_in_time(data, last):
            return None
        presence = self._agents[agent]
        presence.now = time_of(data)
        self._heard[agent] = now
        return presence

    @property
    def counts(self) -> PoolCounts:
        """Sums over every agent so far."""
        for presence in self._agents.values():
            self._count(presence)
        return self._counts

    def _count(self, presence: Presence) -> None:
        self._counts.heard(
            presence.agent,
            presence.items,
            presence.crashes,
            presence.recycled,
            presence.start_failures,
        )

    def _forget(self, agent: str) -> None:
        self._agents.pop(agent, None)
        self._heard.pop(agent, None)
        self._data.pop(agent, None)
        self._weigh(agent, None)

    def _weigh(self, agent: str, presence: Presence | None) -> None:
        """Bring the sums over all agents up to date with an agent's cores and distance."""
        share = 0, 0
        if presence is not None and not presence.draining and is_understood(presence):
            share = presence.cores, presence.cores * round(1e6 * presence.round_trip)
        before = self._shares.pop(agent, (0, 0))
        if presence is not None:
            self._shares[agent] = share
        if share != before:
            self._all_cores += share[0] - before[0]
            self._core_micros += share[1] - before[1]
            self.changes += 1

    def expire(self, now: float) -> list[Presence]:
        """Remove agents that have been silent for too long, and return them."""
        gone = []
        for agent, at in list(self._heard.items()):
            if now - at > GONE_AFTER:
                gone.append(self._agents[agent])
                self._count(self._agents[agent])
                self._forget(agent)
                self.vanished[agent] = now
                self._changed()
        for agent in [a for a, at in self.vanished.items() if now - at > VANISHED_KEPT]:
            del self.vanished[agent]
        return gone

    def credit(self, gap: float) -> None:
        """Allow for ``gap`` seconds in which this process was frozen."""
        self._heard = {agent: at + gap for agent, at in self._heard.items()}

    @property
    def digests(self) -> set[str]:
        """Digests of the functions that agents offer."""
        return {presence.digest for presence in self._agents.values()}

    def _changed(self) -> None:
        self._offers.clear()
        self._cores.clear()
        self._spoken.clear()
        self._brought.clear()
        self.changes += 1

    def all_speak(self, protocol: int) -> bool:
        """Return whether all agents speak this protocol, or a later one."""
        if protocol not in self._spoken:
            self._spoken[protocol] = all(p.protocol >= protocol for p in self._agents.values())
        return self._spoken[protocol]

    @property
    def all_cores(self) -> int:
        """Number of cores of the whole pool, at least 1."""
        return max(1, self._all_cores)

    @property
    def round_trip(self) -> float:
        """Mean seconds from a core's agent to its broker and back."""
        return self._core_micros / self.all_cores / 1e6

    @property
    def agents(self) -> list[Presence]:
        return sorted(self._agents.values(), key=lambda p: (p.host, p.agent))

    def host(self, agent: str) -> str:
        """Return the host of an agent; empty if it is not known."""
        presence = self._agents.get(agent)
        return "" if presence is None else presence.host

    @property
    def strangers(self) -> list[Presence]:
        """Agents whose protocol this process does not speak."""
        return [p for p in self.agents if not is_understood(p)]

    @property
    def failure(self) -> str | None:
        """The reason why workers cannot start, if an agent has one and no worker is ready."""
        return _failure(self._agents.values())

    def failure_of(self, function: str) -> str | None:
        """Return the reason why no worker can start among those that offer a function.

        If none offers it, all agents count.
        """
        offering = [
            p for p in self._agents.values() if any(f.name == function for f in p.functions)
        ]
        return _failure(offering or self._agents.values())

    def offers(self, function: str) -> FunctionOffers:
        """Return the offers of a function, computed once until something changes."""
        known = self._offers.get(function)
        if known is None:
            known = self._offers[function] = FunctionOffers(self._agents.values(), function)
        return known

    def offer(self, function: str, ref: FunctionRef | None) -> str | None:
        """Return the newest live offer that can run a function.

        ref: where workers that do not have it find it.
        """
        if ref is None:
            return self.offers(function).newest
        local = self.sealer.offer if self.sealer is not None else ""
        key = function, ref.pickles, ref.items, local, bool(ref.module)
        if key not in self._brought:
            self._brought[key] = self._offer_for(function, ref, local)
        return self._brought[key]

    def _offer_for(self, function: str, ref: FunctionRef, local: str) -> str | None:
        """Return the offer that runs a function which chunks name or bring.

        local: the offer of sealed chunks, if the chunks are sealed.
        """
        is_brought = bool(ref.module)  # It also runs where nobody offers it.
        if self.sealer is not None and is_brought:
            return local if self.has_local(local, ref) else None
        newest = self._reading(function, ref) if ref.pickles else self.offers(function).newest
        return newest or (self.trusting(ref) if is_brought else None)

    def _reading(self, function: str, ref: FunctionRef) -> str | None:
        """Return the newest live offer of a function whose workers load these pickles."""
        able = [p for p in self.trusting_agents if _reads(p, ref)]
        return FunctionOffers(able, function).newest

    def reads_pickles(self, function: str, pickles: str) -> bool:
        """Return whether the workers that would run a function load pickles of these versions."""
        trusting = self.trusting_agents
        if not all(p.protocol >= PICKLES_PROTOCOL for p in trusting):
            return False
        newest = self.offers(function).newest
        ref = FunctionRef("", "", pickles=pickles, items=True)
        able = {p.offer for p in trusting if _reads(p, ref)}
        return newest in able if newest is not None else bool(able)

    def readers(self, ref: FunctionRef) -> list[Presence]:
        """Return the agents that would run a function that a chunk brings, could they read it."""
        if self.sealer is not None:
            return self.local_agents(self.sealer.offer)
        return self.trusting_agents

    def trusting(self, ref: FunctionRef) -> str | None:
        """Return the newest live offer whose workers run the function that chunks bring."""
        able = [p for p in self.trusting_agents if _reads(p, ref)]
        return max(able, key=lambda p: p.rank).offer if able else None

    @property
    def trusting_agents(self) -> list[Presence]:
        """The agents that run functions which a chunk names or brings."""
        return [p for p in self.agents if (p.embedded or p.trusts) and is_able(p)]

    def cores(self, offer: str) -> int:
        """Number of cores that take this offer's chunks."""
        cores = self._cores.get(offer)
        if cores is None:
            agents = self._agents.values()
            cores = sum(p.cores for p in agents if _has(p, offer) and not p.draining)
            self._cores[offer] = cores
        return cores

    def is_served(self, offer: str) -> bool:
        """Return whether an agent with this offer is there, even if it is draining."""
        return any(_has(p, offer) and not _has_failed(p) for p in self._agents.values())

    def oldest(self, offer: str) -> Presence | None:
        """Return the agent with the earliest protocol among those that take this offer's chunks."""
        return min(self.takers(offer), key=lambda p: p.protocol, default=None)

    def takers(self, offer: str) -> Iterator[Presence]:
        """Iterate over the agents that take this offer's chunks."""
        return (p for p in self._agents.values() if _has(p, offer) and not p.draining)

    def broken(self, function: str, ref: FunctionRef | None) -> tuple[str, str] | None:
        """Return what workers cannot import or load for a function, and the reason, or None.

        One agent's reason is enough for a function that callers bring; otherwise all that offer it
        must have one.
        """
        if ref is None or not ref.module:
            offers = self.offers(function)
            return offers.broken if offers.newest is None else None
        homes = [loader_home(function, ref)]
        if ref.value is None:
            homes.append(ref.path or ref.module)
        agents = self._agents.values()
        return next(((h, p.broken[h]) for p in agents for h in homes if h in p.broken), None)

    def has_local(self, offer: str, ref: FunctionRef | None = None) -> bool:
        """Return whether an agent is there that takes the chunks sealed for this offer."""
        return any(_reads(p, ref) for p in self.local_agents(offer))

    def local_agents(self, offer: str) -> list[Presence]:
        """Return the agents that take the chunks sealed for this offer."""
        return [p for p in self.agents if p.local == offer and is_able(p)]

    def functions(self) -> list[FunctionStatus]:
        """Return every function that is offered, as the newest offer describes it."""
        found: dict[str, tuple[int, FunctionInfo]] = {}
        for presence in self._agents.values():
            for info in presence.functions:
                if info.name not in found or presence.rank > found[info.name][0]:
                    found[info.name] = presence.rank, info
        statuses = []
        for name, (_, info) in sorted(found.items()):
            having = [p for p in self.agents if any(f.name == name for f in p.functions)]
            cores = sum(p.cores for p in having if not p.draining)
            alive = any(p.ready and not p.draining for p in having)
            statuses.append(FunctionStatus(info, [p.host for p in having], cores, alive))
        return statuses


def _abilities(presence: Presence) -> tuple[object, ...]:
    """Return the part of an announcement that decides which chunks an agent gets."""
    return (
        presence.offer,
        presence.local,
        presence.rank,
        presence.cores,
        presence.draining,
        presence.ready > 0,
        presence.failure,
        presence.digest or presence.functions,
        presence.embedded,
        presence.trusts,
        presence.broken,
        presence.protocol,
        presence.oldest_protocol,
    )


def is_able(presence: Presence) -> bool:
    """Return whether an agent takes chunks.

    An agent whose workers cannot start does not: their source was broken.
    """
    able = bool(presence.offer) and not presence.draining and not _has_failed(presence)
    return able and is_understood(presence)


def idle_cores(presence: Presence) -> int:
    """Return the number of cores of an agent that wait for chunks."""
    return presence.ready - presence.busy if is_able(presence) else 0


def is_understood(presence: Presence) -> bool:
    """Return whether this process and the agent can work together."""
    return understands(presence.protocol, presence.oldest_protocol)


def _has(presence: Presence, offer: str) -> bool:
    return presence.offer == offer or (offer != "" and presence.local == offer)


def _reads(presence: Presence, ref: FunctionRef | None) -> bool:
    """Return whether the agent's workers read the pickles of a map.

    Embedded workers run this process's own Python.
    """
    if ref is None or not ref.pickles or presence.embedded:
        return True
    if ref.items and presence.protocol < PICKLES_PROTOCOL:
        return False
    return pickles_of(presence.python, presence.packages) == ref.pickles


def _has_failed(presence: Presence) -> bool:
    return presence.failure is not None and not presence.ready


def _failure(agents: Iterable[Presence]) -> str | None:
    agents = list(agents)
    if any(p.ready for p in agents):
        return None
    return next((p.failure for p in agents if p.failure), None)


class FunctionOffers:
    """The offers of one function.

    Attributes:
        newest: The newest live offer that has the function, or None.
        info: The function as that offer describes it.
        broken: What an agent that offers it cannot load, and the reason, or None.
    """

    def __init__(self, agents: Iterable[Presence], function: str) -> None:
        self.newest: str | None = None
        self.info: FunctionInfo | None = None
        self.broken: tuple[str, str] | None = None
        rank = -1
        for presence in agents:
            if not is_able(presence) or presence.rank < rank:
                continue
            for info in presence.functions:
                if info.name != function:
                    continue
                home = loader_home(function, None, info.module)
                if home in presence.broken:
                    self.broken = home, presence.broken[home]
                    self.info = self.info or info
                else:
                    self.newest, self.info, rank = presence.offer, info, presence.rank
