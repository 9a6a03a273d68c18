"""Decide which pulls an agent sends for its idle cores. No I/O.

An idle core asks the express lane first, which answers at once, full or empty, and then the main
lane. While the express lane is known to be quiet, the core asks both at once, and a chunk from the
main lane is held until the express lane has answered too. If both are empty, the core parks a pull
at each, to be answered when a chunk comes. A parked pull shows that its lane is empty, so the next
core need not ask. A pull may outlast the core that it was sent for; its chunk is then handed back
at once, so that no chunk waits at a busy core.

The agent of a `jetmap up` has a third lane, of sealed chunks that only it may take. That lane and
the other two take turns: after a chunk of theirs the next idle core asks the local lane first, and
the reverse. One pull stays parked at an empty local lane, so that the turns cost nothing while
the lane is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from jetmap.wire.messages import Lane
from jetmap.wire.subjects import LOCAL

AgentLane = Lane | Literal["local"]

# Express chunks in a row after which the next idle core asks the main lane first: a flood of short
# maps must leave that lane a share.
EXPRESS_RUN = 8


@dataclass(frozen=True)
class Pull:
    """One pull to send."""

    lane: AgentLane
    wait: bool  # Park it until a chunk comes; otherwise it is answered at once.
    shard: int = 0
    chunks: int = 1  # Chunks that it lets through.


class Verdict(Enum):
    """The treatment of a delivered chunk: take it, hand it back, or hold it for ``settle_held``."""

    TAKE = auto()
    HOLD = auto()
    BACK = auto()


class LanePulls:
    """The pulls at one lane, not yet answered."""

    def __init__(self) -> None:
        self.asked = 0
        self.parked = 0

    @property
    def out(self) -> int:
        return self.asked + self.parked


class Pulls:
    """The pulls of one agent.

    Args:
        local: Whether there is a local lane.

    Attributes:
        idle: Cores that may be given a chunk.
        is_far: Whether the broker is far: then no core asks one lane after the other.
    """

    def __init__(self, *, local: bool = False) -> None:
        self.idle = 0
        self.is_far = False
        self._lanes: dict[AgentLane, LanePulls] = {"express": LanePulls(), "main": LanePulls()}
        if local:
            self._lanes[LOCAL] = LanePulls()
        self._local_turn = local  # The next idle core asks the local lane first.
        self._local_empty = False  # That lane's last answer.
        self._past_express = 0  # Idle cores that found the express lane empty.
        self._express_run = 0
        self._known_empty = False  # The main lane has just answered that it is empty.
        self._quiet = False  # The express lane's last answer was that it is empty.
        self._held = 0  # Chunks of the main lane that wait for the express lane's answer.

    def take_over(self, before: Pulls) -> None:
        """Go on with the cores and the held chunks of pulls whose answers are not awaited."""
        self.idle, self.is_far, self._held = before.idle, before.is_far, before._held

    def on_core_freed(self) -> None:
        self.idle += 1
        if self._express_run >= EXPRESS_RUN:
            self._express_run = 0
            self._past_express += 1

    def on_core_lost(self) -> None:
        """Record that an idle core went away: its worker died, or the agent is draining."""
        self.idle -= 1
        self._settle()

    def plan(self) -> list[Pull]:
        """Return the pulls to send now, which count as sent."""
        express, main = self._lanes["express"], self._lanes["main"]
        pulls = self._ask_local()
        idle = self.idle - (self._lanes[LOCAL].asked if LOCAL in self._lanes else 0)
        pulls += self._cover("express", idle - express.out - self._past_express)
        past = idle if self._quiet or self.is_far else express.parked + self._past_express
        pulls += self._cover("main", min(idle, past) - main.out - self._held)
        self._known_empty = False
        # A core that waits at the main lane, and only there, waits at the express lane too.
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
        """Wait at the local lane where cores wait at the main one, and always once it is empty."""
        local = self._lanes.get(LOCAL)
        if local is None or local.asked:
            return []
        waiting = max(min(self.idle, self._parked_cores()), int(self._local_empty))
        return self._cover(LOCAL, waiting - local.parked, wait=True)

    def _parked_cores(self) -> int:
        return self._lanes["main"].parked

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

    def on_delivered(self, lane: AgentLane, shard: int = 0, *, waited: bool) -> Verdict:
        """Decide on a chunk that came: whether a core is idle for it."""
        self._answered(lane, shard, waited)
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
            return self.settle_held() or Verdict.HOLD
        self._quiet = False
        if self.idle <= 0:
            return Verdict.BACK
        self.idle -= 1
        self._local_turn = True
        self._express_run += 1
        self._settle()
        return Verdict.TAKE

    def settle_held(self) -> Verdict | None:
        """Decide on the first chunk that is held; None if there is none, or it must wait longer.

        Call it after each event until it returns None.
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

    def on_empty(self, lane: AgentLane, shard: int = 0) -> None:
        """Record that a lane had nothing; ``plan`` then says what to ask next."""
        self._answered(lane, shard, waited=False)
        if lane == LOCAL:
            self._local_empty, self._local_turn = True, False
        elif lane == "express":
            self._quiet = True
            self._past_express += 1
            self._settle()
        else:
            self._known_empty = True

    def on_expired(self, lane: AgentLane, shard: int = 0) -> None:
        """Record that a parked pull ended without a chunk."""
        self._answered(lane, shard, waited=True)

    def forget(self, lane: AgentLane, shard: int = 0) -> None:
        """Count this lane's pulls as lost: they were not answered for too long."""
        self._lanes[lane].asked = self._lanes[lane].parked = 0
        if lane == LOCAL:
            self._local_empty = False
        else:
            self._past_express = 0

    def out(self, lane: AgentLane, shard: int = 0) -> int:
        return self._lanes[lane].out

    def _answered(self, lane: AgentLane, shard: int, waited: bool) -> None:
        pulls = self._lanes[lane]
        if waited:
            pulls.parked = max(0, pulls.parked - 1)
        else:
            pulls.asked = max(0, pulls.asked - 1)

    def _settle(self) -> None:
        self._past_express = max(0, min(self._past_express, self.idle))
