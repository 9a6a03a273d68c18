"""Track agents by their announcements; choose an offer for a function."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

from jetmap.errors import JetmapError, NotImportable, NoWorkers, UnknownFunction, WorkerStartFailed
from jetmap.functions.advice import suggestion
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.time_budget import TimeBudget
from jetmap.wire import pool_streams, subjects
from jetmap.wire.messages import FunctionRef, Ping, encode
from jetmap.wire.presence import FunctionInfo, Presence, read_presence
from jetmap.wire.protocol import OLDEST_PROTOCOL, PROTOCOL
from jetmap.wire.seals import Sealer
from jetmap.wire.timing import GONE_AFTER
from jetmap.wire.versions import package_versions, python_version, versions_text

from .roster import Roster, is_understood

logger = logging.getLogger(__name__)

ASK_SECONDS = 1.0  # Seconds until another agent is asked for functions, if one has not answered.
STEP_SECONDS = 0.25  # Seconds between two looks whether what one waits for has come.
MOST_DIGESTS = 64  # Sets of functions that are remembered; above, only those offered now.


def mismatch(function: str, pool: str, strangers: Iterable[Presence]) -> str:
    """Say which hosts cannot be used because of their release, and what to upgrade."""
    strangers = list(strangers)
    hosts = "; ".join(
        dict.fromkeys(
            f"{p.host} runs {_release(p.packages)}, which speaks protocol {p.protocol}"
            for p in strangers
        )
    )
    older = any(p.protocol < OLDEST_PROTOCOL for p in strangers)
    advice = "upgrade jetmap on those hosts" if older else "upgrade jetmap here"
    return (
        f"no worker that this process can talk to has {function!r} in pool {pool!r}: {hosts}; this "
        f"process runs {_release(package_versions())}, which speaks protocols {OLDEST_PROTOCOL} "
        f"to {PROTOCOL}: {advice}"
    )


def start_failed(failure: str) -> WorkerStartFailed:
    """Make the error for workers that cannot start."""
    return WorkerStartFailed(f"no worker can start:\n{failure}")


def _release(packages: Mapping[str, str]) -> str:
    version = packages.get("jetmap")
    return f"jetmap {version}" if version else "an older jetmap"


class Digests:
    """Complete announcements that name their functions by a digest. No I/O.

    An agent is not there for anybody before its functions are known.
    """

    def __init__(self) -> None:
        self._functions: dict[str, list[FunctionInfo]] = {}
        self._waiting: dict[str, tuple[Presence, bytes, float]] = {}  # By agent.
        self._asked: dict[str, float] = {}  # When somebody was asked, by digest.

    def complete(self, presence: Presence, data: bytes, now: float) -> list[tuple[Presence, bytes]]:
        """Return the announcements whose functions are known, now that this one has come."""
        self._waiting.pop(presence.agent, None)
        digest = presence.digest
        if not digest or presence.gone or not is_understood(presence):
            return [(presence, data)]
        known = self._functions.get(digest)
        if known is None and not presence.functions:
            self._waiting[presence.agent] = presence, data, now
            return []
        found = [(presence, data)]
        if known is None:
            known = self._functions[digest] = presence.functions
            self._asked.pop(digest, None)
            for agent, (other, its_data, at) in list(self._waiting.items()):
                if other.digest == digest:
                    del self._waiting[agent]
                    if now - at < GONE_AFTER:
                        found.append((other, its_data))
        for complete, _ in found:
            complete.functions = known
        return found

    def fill_in(self, presence: Presence) -> bool:
        """Give an announcement its functions, if they are known by its digest; return whether."""
        if presence.functions or not presence.digest or presence.digest not in self._functions:
            return False
        self._waiting.pop(presence.agent, None)
        presence.functions = self._functions[presence.digest]
        return True

    def is_to_be_asked(self, digest: str, now: float) -> bool:
        """Return whether to ask an agent for its functions: nobody else has just been asked."""
        if digest in self._functions or now - self._asked.get(digest, -ASK_SECONDS) < ASK_SECONDS:
            return False
        self._asked[digest] = now
        return True

    def forget(self, offered: set[str], now: float) -> None:
        """Forget functions that nobody offers, and agents that have fallen silent."""
        self._functions = {d: f for d, f in self._functions.items() if d in offered}
        self._waiting = {a: w for a, w in self._waiting.items() if now - w[2] < GONE_AFTER}
        self._asked = {d: at for d, at in self._asked.items() if now - at < GONE_AFTER}

    @property
    def count(self) -> int:
        """Number of sets of functions that are known or wanted."""
        return len(self._functions) + len(self._asked)


class AgentTracker:
    """Keep the roster up to date, and explain why a function cannot run.

    Args:
        on_presence: Called after each announcement.
        on_quiet: Called instead while ``is_quiet``.
        is_quiet: Returns whether no map is open, so that an announcement starts nothing.
        sealer: Seals the chunks that bring their function.
    """

    def __init__(
        self,
        connection: Broker,
        pool: str,
        on_presence: Callable[[Presence], Awaitable[None]],
        on_quiet: Callable[[Presence], None] = lambda presence: None,
        is_quiet: Callable[[], bool] = lambda: False,
        sealer: Sealer | None = None,
    ) -> None:
        self.roster = Roster(sealer)
        self._connection = connection
        self._pool = pool
        self._after_presence = on_presence
        self._after_quiet = on_quiet
        self._is_quiet = is_quiet
        self._waiters = 0  # How many wait for an announcement.
        self._announced = asyncio.Event()
        self._digests = Digests()
        self._are_starting: Callable[[], bool] = lambda: False
        self._start_timeout = 0.0

    def own(self, are_starting: Callable[[], bool], timeout: float) -> None:
        """Know that the pool has no other workers than an embedded cluster's.

        Args:
            are_starting: Whether they are started anew at the moment.
            timeout: Seconds that they get for it.
        """
        self._are_starting, self._start_timeout = are_starting, timeout

    async def subscribe(self) -> Subscription:
        return await self._connection.subscribe(
            subjects.all_presence(self._pool), self._on_presence, direct=True, skip=self._on_data
        )

    async def ping(self, agent: str = "") -> None:
        """Ask all agents to announce themselves; or one, for its functions, too."""
        try:
            ping = encode(Ping(PROTOCOL, agent))
            await self._connection.publish(subjects.control(self._pool), ping)
        except JetmapError as error:
            logger.debug("agents could not be asked to announce themselves: %s", error)

    async def wait_for(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Wait for announcements until ``ready`` holds; return False after ``timeout`` seconds."""
        self._waiters += 1
        budget = TimeBudget(timeout)
        try:
            while not ready():
                if budget.is_over:
                    return False
                self._announced.clear()
                began = time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(budget.step(STEP_SECONDS)):
                        await self._announced.wait()
                budget.spend(time.monotonic() - began)
        finally:
            self._waiters -= 1
        return True

    async def look_again(self) -> None:
        """Let those who wait for announcements look whether they have what they wait for."""
        self._announced.set()

    def misfit(self, ref: FunctionRef | None) -> NotImportable | None:
        """Return an error if the only workers for a pickled function run another Python."""
        if ref is None or not ref.pickles:
            return None
        agents = self.roster.readers(ref)
        if not agents:
            return None
        there = "; ".join(f"{p.host} has {versions_text(p.python, p.packages)}" for p in agents)
        here = versions_text(python_version(), package_versions())
        return NotImportable(
            f"{ref.qualname} of {ref.module} travels as a pickle, which only the same versions of "
            f"Python and cloudpickle can read: this process has {here}, but {there}. Use the same "
            "versions on both sides, or move the function to a module that the workers import "
            "(jetmap worker TASKS)"
        )

    def failure(self, function: str) -> WorkerStartFailed | None:
        """Return an error if the workers that have a function cannot start any more."""
        failure = self.roster.failure_of(function)
        return start_failed(failure) if failure else None

    def lack(self, function: str) -> str | None:
        """Return the reason why no worker can run a registered function now, or None."""
        if self.roster.offer(function, None) is not None:
            return None
        failed = self.failure(function)
        return str(failed if failed is not None else self.no_workers(function))

    def no_workers(self, function: str) -> NoWorkers:
        """Make the error for a function that no live worker has."""
        if (strangers := self.roster.strangers) and not self.roster.offers(function).newest:
            return NoWorkers(mismatch(function, self._pool, strangers))
        if self._are_starting():
            return NoWorkers(
                "the embedded cluster is started anew, and no worker of it was ready after "
                f"{self._start_timeout:g} s (start_timeout): their imports take longer, or hang"
            )
        return NoWorkers(
            f"no worker that has {function!r} is alive in pool {self._pool!r}; start one: "
            "jetmap worker TASKS --nats URL"
        )

    def broken(self, function: str, ref: FunctionRef | None) -> WorkerStartFailed | None:
        """Return an error if workers cannot import the module of a function, or load its state."""
        broken = self.roster.broken(function, ref)
        if broken is None:
            return None
        home, reason = broken
        what = f"call {function}()" if home.endswith("()") else f"import {home}"
        return WorkerStartFailed(f"no worker can {what}:\n{reason}")

    async def meet(self, function: str, patience: float) -> None:
        """Wait up to ``patience`` seconds for an agent that can run a function of this process.

        That is one which has a function of this name, or which runs pickled functions. A process
        that is new has heard some agents only: the one that it needs may announce itself last.
        """

        def met() -> bool:
            return bool(self.roster.offers(function).newest or self.roster.trusting_agents)

        if not met():
            await self.ping()
            await self.wait_for(met, patience)

    async def find(self, function: str, ref: FunctionRef | None, patience: float) -> None:
        """Wait up to ``patience`` seconds for an offer; raise the error that its absence means.

        While the workers of an embedded cluster are started anew, it gets the time that this takes.
        """

        def is_offered() -> bool:
            return self.roster.offer(function, ref) is not None

        if (failed := self.broken(function, ref)) is not None:
            raise failed
        if is_offered():
            return
        await self.ping()
        if await self.wait_for(is_offered, patience):
            return
        if self._are_starting():
            await self.wait_for(
                lambda: is_offered() or not self._are_starting(), self._start_timeout
            )
            # Those that have come may have to be asked for a function that they do not know yet.
            if await self.wait_for(is_offered, patience):
                return
        if (failed := self.failure(function)) is not None:
            raise failed
        if (misfit := self.misfit(ref)) is not None:
            raise misfit
        if ref is None:
            await self.require_known(function)
        raise self.no_workers(function)

    async def require_known(self, function: str) -> None:
        """Raise UnknownFunction unless a worker of this pool has ever announced the function."""
        names = [status.info.name for status in self.roster.functions()]
        if function in names or await pool_streams.known(self._connection, self._pool, function):
            return
        raise UnknownFunction(
            f"no worker ever announced a function {function!r} in pool {self._pool!r}"
            f"{suggestion(function, names)}; functions that are offered now: "
            f"{', '.join(names) or 'none'}"
        )

    def _on_data(self, subject: bytes, data: bytes) -> bool:
        """Process an announcement from which nothing follows; return whether it was one.

        Most are: each of a thousand agents sends one every two seconds, and most repeat themselves.
        """
        if self._waiters or not self._is_quiet():
            return False
        agent, now = subject[subject.rfind(b".") + 1 :].decode(), time.monotonic()
        presence = self.roster.on_repeated(agent, data, now)
        if presence is None:
            presence = read_presence(data)
            if not is_understood(presence) or not self._digests.fill_in(presence):
                return False
            self.roster.on_presence(presence, now, data)
        self._announced.set()
        self._after_quiet(presence)
        return True

    async def _on_presence(self, message: Message) -> None:
        now, data, digests = time.monotonic(), message.data, self._digests
        presence = self.roster.on_repeated(message.subject.rpartition(".")[2], data, now)
        if presence is not None:
            self._announced.set()
            await self._after_presence(presence)
            return
        presence = read_presence(data)
        if digests.count >= MOST_DIGESTS:
            digests.forget({*self.roster.digests, presence.digest}, now)
        complete = digests.complete(presence, data, now)
        if not complete and digests.is_to_be_asked(presence.digest, now):
            await self.ping(presence.agent)
        for announced, its_data in complete:
            self.roster.on_presence(announced, now, its_data)
            self._announced.set()
            await self._after_presence(announced)
