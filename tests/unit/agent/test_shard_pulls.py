"""The cost of pulls where a pool has shards, and the turns that these take."""

from __future__ import annotations

from collections import Counter

import pytest

from jetmap.agent.pulls import AgentLane, Pulls, Verdict
from jetmap.agent.shard_pulls import PASSED_OVER, ShardPulls

Place = tuple[AgentLane, int]


class Pool:
    """One agent, and servers that answer in the order of the pulls."""

    def __init__(self, shards: int, cores: int = 1) -> None:
        self.pulls: Pulls = ShardPulls(shards) if shards > 1 else Pulls()
        for shard in range(shards):
            if isinstance(self.pulls, ShardPulls):
                self.pulls.open(shard)
        self.queue: Counter[Place] = Counter()
        self.parked: Counter[Place] = Counter()
        self.sent = 0
        self.taken: list[Place] = []
        for _ in range(cores):
            self.pulls.on_core_freed()
        self.answer()

    def answer(self) -> None:
        """Answer pulls, and those that follow from the answers, until none is left."""
        while pulls := self.pulls.plan():
            self.sent += len(pulls)
            for pull in pulls:
                place: Place = pull.lane, pull.shard
                if self.queue[place]:
                    self.queue[place] -= 1
                    self._deliver(place, waited=pull.wait)
                elif pull.wait:
                    self.parked[place] += 1
                else:
                    self.pulls.on_empty(*place)

    def publish(self, place: Place, count: int = 1) -> None:
        for _ in range(count):
            if self.parked[place]:
                self.parked[place] -= 1
                self._deliver(place, waited=True)
                self.answer()
            else:
                self.queue[place] += 1

    def _deliver(self, place: Place, *, waited: bool) -> None:
        verdict = self.pulls.on_delivered(*place, waited=waited)
        if verdict is Verdict.HOLD:
            verdict = self.pulls.settle_held() or verdict
        if verdict is Verdict.BACK:
            self.queue[place] += 1
        else:
            self.taken.append(place)

    def work(self, chunks: int) -> None:
        """Let cores end chunks, one after the other."""
        for _ in range(chunks):
            self.pulls.on_core_freed()
            self.answer()


def expire(pool: Pool) -> None:
    """Let every parked pull end."""
    for place in list(pool.parked.elements()):
        pool.parked[place] -= 1
        pool.pulls.on_expired(*place)
    pool.answer()


@pytest.mark.parametrize("shards", [1, 3, 8])
def test_a_chunk_takes_two_pulls_in_a_busy_pool_however_many_shards_there_are(shards: int) -> None:
    pool = Pool(shards, cores=4)
    for shard in range(shards):
        pool.publish(("main", shard), 400)
    expire(pool)
    before = pool.sent
    pool.work(200)
    assert pool.sent - before <= 2 * 200 + 4 * shards
    shares = Counter(shard for _, shard in pool.taken[-200:])
    assert set(shares) == set(range(shards)) and max(shares.values()) <= 1.5 * 200 / shards


@pytest.mark.parametrize("shards", [3, 8])
def test_empty_shards_cost_a_busy_one_little(shards: int) -> None:
    pool = Pool(shards)
    pool.publish(("main", 1), 400)
    pool.work(1)
    expire(pool)
    before, taken = pool.sent, len(pool.taken)
    pool.work(200)
    assert len(pool.taken) - taken == 200
    # One express lane and one main lane for each chunk, and an empty one now and then.
    assert pool.sent - before <= 200 * (2 + 1 / PASSED_OVER) * 1.2 + 2 * shards


@pytest.mark.parametrize(
    ("cores", "shards", "most"), [(1, 1, 1), (1, 3, 3), (16, 1, 16), (16, 3, 18)]
)
def test_idle_cores_share_the_pulls_of_all_shards(cores: int, shards: int, most: int) -> None:
    pool = Pool(shards, cores)
    for lane in ("express", "main"):
        parked = [pool.parked[lane, shard] for shard in range(shards)]
        assert cores <= sum(parked) <= most and all(parked)


@pytest.mark.parametrize("cores", [1, 5, 16])
def test_all_idle_cores_start_on_the_map_of_one_shard(cores: int) -> None:
    pool = Pool(3, cores)
    pool.publish(("main", 2), cores)
    assert pool.taken == [("main", 2)] * cores and not pool.queue.total()


def test_each_express_lane_has_its_turn_while_another_shard_is_busy() -> None:
    pool = Pool(3)
    pool.publish(("main", 0), 100)
    expire(pool)
    for shard in range(3):
        pool.publish(("express", shard))
        before = len(pool.taken)
        pool.work(4)
        assert ("express", shard) in pool.taken[before:]


def test_a_lost_shard_keeps_no_core_from_the_others() -> None:
    pool = Pool(3, cores=2)
    assert isinstance(pool.pulls, ShardPulls)
    pool.pulls.close(1)
    pool.parked["main", 1] = pool.parked["express", 1] = 0
    pool.answer()
    pool.publish(("main", 0))
    pool.publish(("express", 2))
    assert pool.taken == [("main", 0), ("express", 2)]
    pool.work(2)
    pool.pulls.open(1)
    pool.answer()
    pool.publish(("main", 1), 2)
    assert pool.taken[2:] == [("main", 1)] * 2
