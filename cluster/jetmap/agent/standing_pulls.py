"""The pulls of an agent that takes every chunk at once: its pool has no other agent. No I/O.

One pull stays parked at each lane and lets many chunks through, so a chunk costs agent and broker
no message but its own and its acknowledgement. The chunks wait at the agent; the dispatcher, which
is the only one, keeps few of them out.
"""

from __future__ import annotations

from .pulls import AgentLane, Pull, Pulls, Verdict

CHUNKS = 1_000  # Chunks that one pull lets through.


class StandingPulls(Pulls):
    """The pulls of one agent without shards, from the time when its first core is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._is_open = False
        self._left: dict[AgentLane, int] = dict.fromkeys(self._lanes, 0)

    def on_core_freed(self) -> None:
        self._is_open = True

    def on_core_lost(self) -> None:
        """Do nothing: what comes waits for another core, or for the next worker of this one."""

    def plan(self) -> list[Pull]:
        pulls = []
        for name, lane in self._lanes.items():
            if self._is_open and not lane.parked:
                lane.parked, self._left[name] = 1, CHUNKS
                pulls.append(Pull(name, True, chunks=CHUNKS))
        return pulls

    def on_delivered(self, lane: AgentLane, shard: int = 0, *, waited: bool) -> Verdict:
        self._left[lane] -= 1
        if self._left[lane] <= 0:
            self._lanes[lane].parked = 0
        return Verdict.TAKE

    def settle_held(self) -> Verdict | None:
        """Hold no chunk."""
        return None
