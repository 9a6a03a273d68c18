"""Faults: their kinds, and the seconds that each may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .checker import HTTP, JOBS, Map

STALL = "machine stood still"
STALL_COUNTS = 1.0  # Seconds of it that may be the cause of something.
# What a fault may still be the cause of, seconds after it has ended: a frozen or killed process is
# noticed after about ten, and what was then sent again may have to wait for a core.
AFTERMATH = 20.0


@dataclass(frozen=True)
class Limit:
    """Seconds from the begin or the end of a fault. of: the guarantee that says so."""

    seconds: float
    since: Literal["began", "ended"]
    of: str


_ELSEWHERE = "its chunks run elsewhere"
_GOES_ON = "the map goes on"
# Until there is an outcome of all that was being computed or reported by whom a fault hit.
LIMITS = {
    "worker killed": Limit(5.0, "began", "the worker is replaced, the rest completes"),
    "agent killed": Limit(20.0, "began", _ELSEWHERE),
    "agent killed, not its workers": Limit(20.0, "began", _ELSEWHERE),
    "agent killed by its item": Limit(20.0, "began", _ELSEWHERE),
    "agent frozen": Limit(20.0, "began", _ELSEWHERE),
    "agent restarted": Limit(14.0, "began", "finishes or hands back within its grace, 10 s"),
    "network cut": Limit(20.0, "began", _ELSEWHERE),
    "network cut for long": Limit(20.0, "began", _ELSEWHERE),
    "caller frozen": Limit(20.0, "ended", _GOES_ON),
    "caller cut off": Limit(20.0, "ended", _GOES_ON),
    "gateway frozen": Limit(20.0, "ended", _GOES_ON),
    "broker restarted, store kept": Limit(15.0, "began", _GOES_ON),
    "broker restarted, store lost": Limit(15.0, "began", _GOES_ON),
    "broker stopped gently": Limit(15.0, "began", _GOES_ON),
    "broker frozen": Limit(15.0, "ended", _GOES_ON),
    "work stream full": Limit(10.0, "ended", "the chunk waits at its caller"),
    "leader killed": Limit(20.0, "began", _GOES_ON),
    "leader frozen": Limit(20.0, "ended", _GOES_ON),
    "leader stopped gently": Limit(20.0, "began", _GOES_ON),
}
# Until nothing of a caller's maps is being computed or starts any more.
KILLED_LIMIT = Limit(10.0, "began", "its work is stopped")
LEFT_LIMIT = Limit(1.0, "began", "no item starts")
STOPPED_LIMIT = Limit(2.0, "began", "half a second for workers, then they are replaced")
KILLED = {"caller killed": KILLED_LIMIT, "gateway killed": KILLED_LIMIT}
# Until a job that its owner, or who may have been it, was taken from starts its next items.
JOB_LIMIT = Limit(15.0, "began", "the job goes on")
OWNERS = {
    "gateway killed": "job, gateway killed",
    "caller killed": "job, caller killed",
    "everything killed": "job, everything killed",  # from when there is something again
}

# Faults that take away the worker that an item is in, or the way back of its result.
TAKING = {*LIMITS, *KILLED, "everything killed", STALL} - {"work stream full"}
# Faults that an agent, with the item, disappears by; with two of them the item is given up.
VANISHING = {
    "agent killed",
    "agent killed, not its workers",
    "agent killed by its item",
    "agent frozen",
    "network cut",
    "network cut for long",
    "everything killed",
}


@dataclass
class Fault:
    """Something that the injector did. agent, worker: pids of those that were hit. caller: the
    name of the caller that was hit, ``gateway`` for one of these. spaced: it came alone, and its
    end was waited for. over: when all that it hit was seen to be well."""

    kind: str
    began: float
    ended: float = math.inf
    agent: int | None = None
    worker: int | None = None
    caller: str | None = None
    text: str = ""
    spaced: bool = False
    over: float | None = None

    @property
    def is_everywhere(self) -> bool:
        """Return whether it hit what all use: the broker, or the machine."""
        return self.agent is None and self.caller is None

    @property
    def counts(self) -> bool:
        """Return whether it may be the cause of something."""
        return self.kind != STALL or self.ended - self.began >= STALL_COUNTS

    def hits_caller_of(self, map: Map) -> bool:
        if map.way in JOBS:
            return self.caller is not None  # Whoever runs dispatchers may have carried it.
        if self.caller == "gateway":
            return map.way in HTTP
        return self.caller is not None and self.caller == map.caller

    def is_around(self, at: float, after: float = AFTERMATH) -> bool:
        return self.began <= at <= self.ended + after

    def meets(self, since: float, until: float, after: float = 0.0) -> bool:
        """Return whether it has to do with this time."""
        return self.began <= until and self.ended + after >= since


def lost_seconds(faults: Iterable[Fault], since: float, until: float) -> float:
    """Seconds of these in which the machine stood still, as it was measured."""
    stalls = (f for f in faults if f.kind == STALL)
    return sum(max(0.0, min(f.ended, until) - max(f.began, since)) for f in stalls)
