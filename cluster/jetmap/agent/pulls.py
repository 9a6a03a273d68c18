"""Which pulls an agent has out, for how many idle cores. No I/O.

An idle core asks the express lane first (an answer comes at once, full or empty), then the
main lane; while the express lane is known to be quiet it asks both at once, and what the main
lane brings is held until the express lane has answered too. Where both are empty it parks a
pull at each, to be answered when something comes. A pull that is parked says that its lane is
empty, so the next core need not ask. A pull may outlast the core that it was for; what it then
brings is handed back at once, so that no chunk waits at a busy core.

The agent of a `jetmap up` has a third lane, of sealed chunks that only it may take. It and the
other two take turns: after a chunk of theirs the next idle core asks the local lane first, after a
local chunk it asks them first. One pull stays parked at an empty local lane, so that the turns
cost nothing while nobody uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from jetmap.wire.messages import Lane
from jetmap.wire.subjects import LOCAL

AgentLane = Lane | Literal["local"]

# A flood of short maps must leave the main lane a share: after this many express chunks in a
# row the next idle core looks at the main lane first.
EXPRESS_RUN = 8


@dataclass(frozen=True)
class Pull:
    """One pull to send. wait: park it until something comes; else it is answered at once."""

    lane: AgentLane
    wait: bool


class Verdict(Enum):
    """What to do with a chunk that came. HOLD: until ``held`` says which of the others."""

    TAKE = auto()
    HOLD = auto()
    BACK = auto()


class _LanePulls:
    def __init__(self) -> None:
        self.asked = 0
        self.parked = 0

    @property
    def out(self) -> int:
        return self.asked + self.parked


class Pulls:
    """idle: cores that have nothing to do and may be given a chunk. local: there is such a lane."""

    def __init__(self, *, local: bool = False) -> None:
        self.idle = 0
        self._lanes: dict[AgentLane, _LanePulls] = {"express": _LanePulls(), "main": _LanePulls()}
        if local:
            self._lanes[LOCAL] = _LanePulls()
        self._local_turn = local  # The next idle core asks the local lane first.
        self._local_empty = False  # That lane's last answer.
        self._past_express = 0  # Idle cores that have heard that the express lane is empty.
        self._express_run = 0
        self._known_empty = False  # The main lane has just said so.
        self._quiet = False  # The express lane's last answer was that it is empty.
        self._held = 0  # Chunks of the main lane that wait for the express lane's answer.

    def core_freed(self) -> None:
        self.idle += 1
        if self._express_run >= EXPRESS_RUN:
            self._express_run = 0
            self._past_express += 1

    def core_lost(self) -> None:
        """An idle core went away (its worker died, or the agent is draining)."""
        self.idle -= 1
        self._settle()

    def plan(self) -> list[Pull]:
        """The pulls to send now; they count as sent."""
        express, main = self._lanes["express"], self._lanes["main"]
        pulls = self._ask_local()
        idle = self.idle - (self._lanes[LOCAL].asked if LOCAL in self._lanes else 0)
        pulls += self._cover("express", idle - express.out - self._past_express)
        past = idle if self._quiet else express.parked + self._past_express
        pulls += self._cover("main", min(idle, past) - main.out - self._held)
        self._known_empty = False
        # Who waits at the main lane, and only there, waits at the express lane too.
        waiting = max(0, self._past_express - main.asked)
        self._past_express -= waiting
        express.parked += waiting
        return pulls + [Pull("express", True)] * waiting + self._park_local()

    def _ask_local(self) -> list[Pull]:
        local = self._lanes.get(LOCAL)
        if local is None or not self._local_turn or local.parked or self._local_empty:
            return []
        return self._cover(LOCAL, self.idle - local.out)

    def _park_local(self) -> list[Pull]:
        """Wait at the local lane where cores wait at the main one; once it is empty, always."""
        local = self._lanes.get(LOCAL)
        if local is None or local.asked:
            return []
        waiting = max(min(self.idle, self._lanes["main"].parked), int(self._local_empty))
        return self._cover(LOCAL, waiting - local.parked, wait=True)

    def _cover(self, name: AgentLane, cores: int, *, wait: bool = False) -> list[Pull]:
        if cores <= 0:
            return []
        lane = self._lanes[name]
        wait = wait or lane.parked > 0 or (name == "main" and self._known_empty)
        if wait:
            lane.parked += cores
        else:
            lane.asked += cores
        return [Pull(name, wait)] * cores

    def delivered(self, lane: AgentLane, *, waited: bool) -> Verdict:
        """A chunk came: is a core idle for it?"""
        self._answered(lane, waited)
        if lane == LOCAL:
            self._local_empty = False
            if self.idle <= 0:
                return Verdict.BACK
            self.idle -= 1
            self._local_turn = False
            self._settle()
            return Verdict.TAKE
        if lane == "main":
            self._held += 1
            return self.held() or Verdict.HOLD
        self._quiet = False
        if self.idle <= 0:
            return Verdict.BACK
        self.idle -= 1
        self._local_turn = True
        self._express_run += 1
        self._settle()
        return Verdict.TAKE

    def held(self) -> Verdict | None:
        """What becomes of the first chunk that is held; None: there is none, or it waits.

        To be called after each event until it says None.
        """
        if not self._held:
            return None
        if self.idle <= 0:
            self._held -= 1
            return Verdict.BACK
        if self.idle <= self._lanes["express"].asked:
            return None
        self._held -= 1
        self.idle -= 1
        self._local_turn = True
        self._past_express = max(0, self._past_express - 1)
        self._express_run = 0
        self._settle()
        return Verdict.TAKE

    def empty(self, lane: AgentLane) -> None:
        """A question was answered with 'nothing there'; ``plan`` says what to ask next."""
        self._answered(lane, waited=False)
        if lane == LOCAL:
            self._local_empty, self._local_turn = True, False
        elif lane == "express":
            self._quiet = True
            self._past_express += 1
            self._settle()
        else:
            self._known_empty = True

    def expired(self, lane: AgentLane) -> None:
        """A parked pull ended with nothing."""
        self._answered(lane, waited=True)

    def forget(self, lane: AgentLane) -> None:
        """Nothing was heard of this lane's pulls for too long: they count as lost."""
        self._lanes[lane].asked = self._lanes[lane].parked = 0
        if lane == LOCAL:
            self._local_empty = False
        else:
            self._past_express = 0

    def out(self, lane: AgentLane) -> int:
        return self._lanes[lane].out

    def _answered(self, lane: AgentLane, waited: bool) -> None:
        pulls = self._lanes[lane]
        if waited:
            pulls.parked = max(0, pulls.parked - 1)
        else:
            pulls.asked = max(0, pulls.asked - 1)

    def _settle(self) -> None:
        self._past_express = max(0, min(self._past_express, self.idle))
