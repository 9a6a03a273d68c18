"""Decide which pulls an agent sends where the pool's chunks are in several shards. No I/O.

A core that comes free asks the express lane of one shard and the main lane of another, so it costs
no more messages than with a single stream. The shards take turns. A main lane that was empty is
passed over for a while, and any lane with a parked pull is, which shows that it is empty. When no
main lane is left to ask, the core waits: pulls are parked at both lanes of every shard, so that the
next chunk of any shard starts at once. Many cores that wait share them: each shard has its part of
one pull for each core, and gets the next one when it has answered.
"""

from __future__ import annotations

from jetmap.wire.subjects import LOCAL

from .pulls import AgentLane, LanePulls, Pull, Pulls, Verdict

# Chunks from main lanes after which one that was empty is asked again.
PASSED_OVER = 4


class ShardPulls(Pulls):
    """The pulls of one agent at the shards of a pool.

    Args:
        shards: Number of shards; none is served until ``open``.
        local: Whether there is a local lane, which has no shards.
    """

    def __init__(self, shards: int, *, local: bool = False) -> None:
        super().__init__(local=local)
        self._waiting = 0  # Idle cores for which pulls are parked.
        self._served: list[int] = []
        self._shards: dict[AgentLane, list[LanePulls]] = {
            lane: [LanePulls() for _ in range(shards)] for lane in ("express", "main")
        }
        self._quiet_shards: set[int] = set()  # Shards whose express lane was empty when last asked.
        self._empty: dict[int, None] = {}  # Shards whose main lane was empty, the first one first.
        self._turn: dict[AgentLane, int] = {"express": -1, "main": -1}
        self._came = 0  # Chunks from main lanes.

    def open(self, shard: int) -> None:
        """Pull at this shard from now on. Earlier pulls there are lost."""
        self.close(shard)
        self._served = sorted([*self._served, shard])

    def close(self, shard: int) -> None:
        """Pull no more at this shard: its server is gone."""
        self._served = [served for served in self._served if served != shard]
        for lane in self._shards:
            self.forget(lane, shard)

    def on_core_lost(self) -> None:
        super().on_core_lost()
        self._waiting = min(self._waiting, self.idle)

    def plan(self) -> list[Pull]:
        express, main = self._lanes["express"], self._lanes["main"]
        pulls = self._ask_local()
        fresh = self.idle - self._waiting
        fresh -= self._lanes[LOCAL].asked if LOCAL in self._lanes else 0
        pulls += self._ask("express", fresh - express.asked - self._past_express)
        past = fresh
        if not self.is_far and self._open("express"):
            # Where that lane is known to be quiet, a core asks both lanes at once.
            lanes = self._shards["express"]
            quiet = sum(lanes[shard].asked for shard in self._quiet_shards)
            past = min(fresh, self._past_express + quiet)
        if (cores := past - main.asked - self._held) > 0:
            asked = self._ask("main", cores)
            pulls += asked
            if not asked:
                self._waiting += cores
                self._past_express = max(0, self._past_express - cores)
        return pulls + self._park() + self._park_local()

    def on_delivered(self, lane: AgentLane, shard: int = 0, *, waited: bool) -> Verdict:
        if lane != LOCAL:
            self._empty.pop(shard, None)  # What follows an express chunk is in the main lane.
        if lane == "express":
            self._quiet_shards.discard(shard)
        if lane == "main":
            self._came += 1
            if self._came % PASSED_OVER == 0 and self._empty:
                del self._empty[next(iter(self._empty))]
        verdict = super().on_delivered(lane, shard, waited=waited)
        if verdict is Verdict.TAKE and waited:
            self._waiting = max(0, self._waiting - 1)
        self._waiting = min(self._waiting, self.idle)
        return verdict

    def settle_held(self) -> Verdict | None:
        verdict = super().settle_held()
        self._waiting = min(self._waiting, self.idle)
        return verdict

    def on_empty(self, lane: AgentLane, shard: int = 0) -> None:
        super().on_empty(lane, shard)
        if lane == "express":
            self._quiet_shards.add(shard)
        elif lane == "main":
            self._empty[shard] = None

    def forget(self, lane: AgentLane, shard: int = 0) -> None:
        if lane == LOCAL:
            super().forget(lane)
            return
        lost, total = self._shards[lane][shard], self._lanes[lane]
        total.asked -= lost.asked
        total.parked -= lost.parked
        lost.asked = lost.parked = 0
        self._empty.pop(shard, None)

    def out(self, lane: AgentLane, shard: int = 0) -> int:
        return super().out(lane) if lane == LOCAL else self._shards[lane][shard].out

    def _answered(self, lane: AgentLane, shard: int, waited: bool) -> None:
        if lane == LOCAL:
            super()._answered(lane, shard, waited)
            return
        pulls = self._shards[lane][shard]
        before = pulls.out
        if waited:
            pulls.parked = max(0, pulls.parked - 1)
        else:
            pulls.asked = max(0, pulls.asked - 1)
        if pulls.out != before:  # Else the pull was forgotten.
            super()._answered(lane, shard, waited)

    def _parked_cores(self) -> int:
        return max(super()._parked_cores(), self._waiting)

    def _open(self, lane: AgentLane) -> list[int]:
        """List the shards that may have a chunk in this lane."""
        empty, pulls = self._empty if lane == "main" else (), self._shards[lane]
        return [s for s in self._served if not pulls[s].parked and s not in empty]

    def _ask(self, lane: AgentLane, cores: int) -> list[Pull]:
        """Ask one shard for each core, in turn; none if all are known to be empty."""
        pulls: list[Pull] = []
        while len(pulls) < cores and (open_shards := self._open(lane)):
            last = self._turn[lane]
            shard = next((s for s in open_shards if s > last), open_shards[0])
            self._turn[lane] = shard
            self._shards[lane][shard].asked += 1
            self._lanes[lane].asked += 1
            pulls.append(Pull(lane, False, shard))
        return pulls

    def _park(self) -> list[Pull]:
        """Wait at every shard, with at least as many pulls in all as there are cores that wait."""
        pulls: list[Pull] = []
        if not self._waiting or not self._served:
            return pulls
        share = -(-self._waiting // len(self._served))
        self._empty.clear()
        for lane, shards in self._shards.items():
            for shard in self._served:
                if (more := share - shards[shard].parked) > 0:
                    shards[shard].parked += more
                    self._lanes[lane].parked += more
                    pulls += [Pull(lane, True, shard)] * more
        return pulls
