"""Choose when faults strike, and which: at random, or one at a time. The seed decides."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from .checker import Checker
from .faults import JOB_LIMIT, KILLED, LIMITS, Fault
from .hits import Hit, Hits
from .recovery import hit_by, is_well
from .runs import Notes
from .stage import Stage

MEAN_GAP = 2.5  # Seconds between faults; some last longer and so overlap.
# One at a time: seconds of quiet before each; how much longer than its limit its end is waited
# for; how often it is tried again where it hit nothing.
QUIET, PATIENCE, TRIES = 1.5, 10.0, 3
LONG = "network cut for long"
LONG_SECONDS = 75.0  # Seconds that must be left for a long fault.


class Injector:
    """Hits one stage. only: faults whose name holds one of these; None: all. problems: what did
    not go as it should meanwhile. read: of the files, what is new."""

    def __init__(
        self,
        stage: Stage,
        seed: int,
        checker: Checker,
        read: Callable[[], None],
        only: list[str] | None = None,
        *,
        jobs: bool = False,
    ) -> None:
        self._stage = stage
        self._seed = f"{seed} {stage.label}"
        self._checker = checker
        self._jobs = jobs
        self._read = read
        self._hits = Hits(stage, jobs=jobs, spaced=stage.spaced)
        kinds = self._hits.kinds
        if stage.spaced and stage.network is not None and not jobs:
            kinds[LONG] = self._hits.cut_for_long
        if stage.spaced and jobs:
            kinds = {kind: kinds[kind] for kind in kinds if kind in SPACED_JOBS}
        self._kinds: dict[str, Hit] = {
            kind: hit
            for kind, hit in kinds.items()
            if only is None or any(text in kind for text in only)
        }
        self._tasks: set[asyncio.Task[Fault | None]] = set()
        self._tending: asyncio.Task[None] | None = None
        self.unreached: list[str] = []  # kinds that there was no time for, one at a time

    @property
    def faults(self) -> list[Fault]:
        return self._hits.faults

    @property
    def problems(self) -> list[str]:
        return self._hits.problems

    @property
    def callers_killed(self) -> set[str]:
        return self._hits.callers_killed

    async def run(self, seconds: float) -> None:
        """Inject faults until the last has ended; items that kill agents go on until ``end``."""
        self._tending = asyncio.ensure_future(self._hits.tend())
        await (self._one_by_one if self._stage.spaced else self._at_random)(seconds)

    async def end(self) -> None:
        """Nothing more is put in the place of what ends."""
        if self._tending is not None:
            self._tending.cancel()
            with suppress(asyncio.CancelledError):
                await self._tending

    def _deck(self) -> Iterator[tuple[str, random.Random, float]]:
        """Every kind in a random order, then again in another: each with a source of its own for
        what else is random about it, and a gap before it. All of it follows from the seed, and
        nothing from what happens."""
        rng = random.Random(self._seed)
        number = 0
        while True:
            kinds = [kind for kind in self._kinds if kind != LONG]
            rng.shuffle(kinds)
            if LONG in self._kinds:
                kinds.append(LONG)
            for kind in kinds:
                number += 1
                gap = min(12.0, 0.3 + rng.expovariate(1 / MEAN_GAP))
                yield kind, random.Random(f"{self._seed} {number}"), gap

    async def _guarded(self, kind: str, draw: random.Random) -> Fault | None:
        try:
            return await self._kinds[kind](draw)
        except Exception as error:
            self.problems.append(f"{kind}: {type(error).__name__}: {error}")
            return None

    async def _at_random(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        due = time.monotonic()
        for kind, draw, gap in self._deck():
            due += gap
            if due > deadline:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))  # Nothing goes wrong.
            task = asyncio.ensure_future(self._guarded(kind, draw))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)

    # One at a time

    async def _one_by_one(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        done: set[str] = set()
        for kind, draw, _ in self._deck():
            left = deadline - time.monotonic()
            if left < 0 or not self._kinds:
                break
            if kind == LONG and left < LONG_SECONDS:
                continue
            for _ in range(TRIES):
                await self._until_well()
                await asyncio.sleep(QUIET)
                if await self._one(kind, draw):
                    done.add(kind)
                    break
        self.unreached = [kind for kind in self._kinds if kind not in done]

    async def _until_well(self) -> None:
        """Every agent and gateway computes, or is ready to."""
        patience = time.monotonic() + 30
        while time.monotonic() < patience:
            now = time.monotonic()
            notes = self._stage.noted_last()
            if all(now - notes.get(agent.pid, 0.0) < 2 for agent in self._stage.agents):
                return
            await asyncio.sleep(0.1)
        self.problems.append("some agent computed nothing for 30 s without a fault")

    async def _one(self, kind: str, draw: random.Random) -> bool:
        """Inject one fault; once everything is well again, return whether it hit something."""
        fault = await self._guarded(kind, draw)
        if fault is None:
            return False
        if kind not in LIMITS:
            wait = JOB_LIMIT.seconds if self._jobs else KILLED[kind].seconds
            await asyncio.sleep(max(0.0, fault.ended + wait + 1 - time.monotonic()))  # All ends.
            fault.over = time.monotonic() - 1
            return True
        limit = LIMITS[kind]
        until = max(getattr(fault, limit.since) + limit.seconds, time.monotonic()) + PATIENCE
        notes = Notes()
        found = False
        while time.monotonic() < until:
            self._read()
            notes.read(self._stage.data.glob("*.runs"))
            hit = hit_by(fault, self._checker, notes)
            found = found or bool(hit)
            if is_well(fault, self._checker, hit, self.callers_killed):
                break
            await asyncio.sleep(0.25)
        fault.over = time.monotonic()
        return found


# Of jobs it is their owner's end that has a limit of its own.
SPACED_JOBS = ("gateway killed", "caller killed", "everything killed", "agent killed")
