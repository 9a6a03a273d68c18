"""An agent's pulls, against a model of servers and messages in any order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hypotheses import examples
from jetmap.agent.pulls import EXPRESS_RUN, AgentLane, Pull, Pulls, Verdict
from jetmap.agent.shard_pulls import ShardPulls
from jetmap.wire.messages import Lane

LANES: tuple[AgentLane, ...] = ("express", "main", "local")
SHARDS = 5  # The most.
Place = tuple[AgentLane, int]  # A lane, and its shard.
places = st.tuples(st.sampled_from(LANES), st.sampled_from([0, *range(SHARDS)]))
quick = examples(100)


@dataclass(eq=False)
class Answer:
    place: Place
    waited: bool
    full: bool


class Pulling(RuleBasedStateMachine):
    """An agent, and servers with two queues each where parked pulls are answered first come first
    served. Messages of one direction on one subscription keep their order; others do not."""

    @initialize(
        cores=st.integers(1, 4), local=st.booleans(), shards=st.sampled_from([1, 2, SHARDS])
    )
    def begin(self, cores: int, local: bool, shards: int) -> None:
        """local: it is the agent of a `jetmap up`, which has a lane of its own."""
        self.sharded = ShardPulls(shards, local=local) if shards > 1 else None
        self.pulls: Pulls = self.sharded or Pulls(local=local)
        if self.sharded is not None:
            for shard in range(shards):
                self.sharded.open(shard)
        self.away: set[int] = set()
        self.places: list[Place] = [(lane, n) for lane in LANES[:2] for n in range(shards)]
        if local:
            self.places.append(("local", 0))
        self.starting, self.busy = cores, 0
        self.held = deque[Place]()  # Where the chunks that are held came from.
        self.asked = deque[Pull]()
        self.queue: dict[Place, int] = dict.fromkeys(self.places, 0)
        self.parked: dict[Place, int] = dict.fromkeys(self.places, 0)
        self.answers: list[Answer] = []

    # The agent

    def plan(self) -> None:
        self.settle()
        self.asked.extend(self.pulls.plan())

    @rule()
    def worker_is_ready(self) -> None:
        if self.starting:
            self.starting -= 1
            self.pulls.on_core_freed()
            self.plan()

    @rule()
    def chunk_is_done(self) -> None:
        if self.busy:
            self.busy -= 1
            self.pulls.on_core_freed()
            self.plan()

    @rule()
    def worker_dies(self) -> None:
        """An idle one: its pulls stay out."""
        if self.pulls.idle:
            self.pulls.on_core_lost()
            self.starting += 1

    @rule(data=st.data())
    def answer_arrives(self, data: st.DataObject) -> None:
        if self.answers:
            # In any order between the four subscriptions, in order within each.
            kinds = list(dict.fromkeys((a.place, a.waited) for a in self.answers))
            place, waited = data.draw(st.sampled_from(kinds))
            first = next(a for a in self.answers if (a.place, a.waited) == (place, waited))
            self.receive(first)

    def receive(self, answer: Answer) -> None:
        self.answers.remove(answer)
        if not answer.full:
            if answer.waited:
                self.pulls.on_expired(*answer.place)
            else:
                self.pulls.on_empty(*answer.place)
            self.plan()
            return
        idle = self.pulls.idle
        verdict = self.pulls.on_delivered(*answer.place, waited=answer.waited)
        if answer.place[0] == "main":
            self.held.append(answer.place)
        if verdict is Verdict.HOLD:
            assert answer.place[0] == "main"
            assert any(pull.lane == "express" for pull in self.asked) or any(
                a.place[0] == "express" for a in self.answers
            ), "a chunk waits for an answer that never comes"
        else:
            place = self.held.popleft() if answer.place[0] == "main" else answer.place
            self.judged(verdict, place, idle)
        self.plan()

    def judged(self, verdict: Verdict, place: Place, idle: int) -> None:
        if verdict is Verdict.TAKE:
            assert idle > 0, "a chunk was started on a busy core"
            self.busy += 1
        else:
            assert idle == 0, "a chunk was handed back beside an idle core"
            self.publish(place)

    def settle(self) -> None:
        idle = self.pulls.idle
        while (verdict := self.pulls.settle_held()) is not None:
            self.judged(verdict, self.held.popleft(), idle)
            idle = self.pulls.idle

    @rule(place=places)
    def lane_was_silent(self, place: Place) -> None:
        """The broker lost the lane's pulls, and those answers that were on their way."""
        if place not in self.places:
            return
        lost = self.lose(place)
        self.pulls.forget(*place)
        self.publish_again(lost)
        self.plan()

    def lose(self, place: Place) -> list[Answer]:
        self.parked[place] = 0
        self.asked = deque(pull for pull in self.asked if (pull.lane, pull.shard) != place)
        lost = [a for a in self.answers if a.place == place]
        self.answers = [a for a in self.answers if a.place != place]
        return lost

    def publish_again(self, lost: list[Answer]) -> None:
        for answer in lost:
            if answer.full:
                self.publish(answer.place)

    @rule(place=places)
    def lane_was_wrongly_given_up(self, place: Place) -> None:
        """Only slow: the pulls are still there, and more are sent."""
        if place not in self.places:
            return
        self.pulls.forget(*place)
        self.plan()

    @rule(shard=st.integers(0, SHARDS - 1))
    def server_is_killed_or_comes_back(self, shard: int) -> None:
        if self.sharded is None or ("main", shard) not in self.places:
            return
        if shard in self.away:
            self.away.remove(shard)
            self.sharded.open(shard)
        else:
            self.away.add(shard)
            lost = self.lose(("main", shard)) + self.lose(("express", shard))
            self.sharded.close(shard)
            self.publish_again(lost)
        self.plan()

    # The servers

    @rule(place=places)
    def publish(self, place: Place) -> None:
        if place not in self.places:
            return
        if self.parked[place]:
            self.parked[place] -= 1
            self.answers.append(Answer(place, True, True))
        else:
            self.queue[place] += 1

    @rule(count=st.integers(1, 4))
    def pull_arrives(self, count: int) -> None:
        for _ in range(min(count, len(self.asked))):
            pull = self.asked.popleft()
            place: Place = pull.lane, pull.shard
            assert pull.lane == "local" or pull.shard not in self.away
            if self.queue[place]:
                self.queue[place] -= 1
                self.answers.append(Answer(place, pull.wait, True))
            elif pull.wait:
                self.parked[place] += 1
            else:
                self.answers.append(Answer(place, False, False))

    @rule(place=places)
    def parked_pull_expires(self, place: Place) -> None:
        if self.parked.get(place):
            self.parked[place] -= 1
            self.answers.append(Answer(place, True, False))

    # What must hold

    @invariant()
    def idle_cores_are_counted(self) -> None:
        if hasattr(self, "pulls"):
            assert self.pulls.idle >= 0
            assert len(self.asked) < 200

    def teardown(self) -> None:
        """All settles: no core idles beside a chunk, and idle ones wait at all lanes."""
        if not hasattr(self, "pulls"):
            return
        while self.starting:
            self.worker_is_ready()
        for _ in range(1000):
            self.pull_arrives(4)
            if self.answers:
                self.receive(self.answers[0])
            elif not self.asked:
                break
        else:
            raise AssertionError("it never settles")
        assert not self.held
        if idle := self.pulls.idle:
            there = [
                place for place in self.places if place[0] == "local" or place[1] not in self.away
            ]
            assert not any(self.queue[place] for place in there)
            for lane in {lane for lane, _ in there}:
                parked = [self.parked[place] for place in there if place[0] == lane]
                assert sum(parked) >= idle and all(parked)


Pulling.TestCase.settings = examples(160, stateful_step_count=60)
TestPulling = Pulling.TestCase


def test_a_local_map_and_a_shared_one_take_turns() -> None:
    """Both have more than the one core can do: each gets every second chunk."""
    pulls = Pulls(local=True)
    queue: dict[AgentLane, int] = {"express": 0, "main": 100, "local": 100}
    taken = []
    for _ in range(20):
        pulls.on_core_freed()
        found = answer_all(pulls, queue)
        assert found is not None
        taken.append(found[0])
    assert 9 <= taken.count("local") <= 11


def test_nobody_pays_for_a_local_lane_that_is_not_used() -> None:
    pulls, plain = Pulls(local=True), Pulls()
    queue: dict[AgentLane, int] = {"express": 0, "main": 100, "local": 0}
    trips = []
    for each in (pulls, plain):
        for _ in range(3):
            each.on_core_freed()
            assert answer_all(each, queue) is not None
        each.on_core_freed()
        trips.append(answer_all(each, queue))
    assert trips[0] == trips[1]


def answer_all(pulls: Pulls, queue: dict[AgentLane, int]) -> tuple[AgentLane, int] | None:
    """Let a server answer. Returns the lane of the core's next chunk, and the number of
    round trips."""
    trips, todo = 0, pulls.plan()
    while todo:
        trips += 1
        taken: AgentLane | None = None
        for pull in reversed(todo):  # The main lane's answer is the first to come.
            if queue[pull.lane]:
                queue[pull.lane] -= 1
                if pulls.on_delivered(pull.lane, waited=pull.wait) is Verdict.TAKE:
                    taken = pull.lane
            elif not pull.wait:
                pulls.on_empty(pull.lane)
            while (verdict := pulls.settle_held()) is not None:
                if verdict is Verdict.TAKE:
                    taken = "main"
                else:
                    queue["main"] += 1
        if taken is not None:
            return taken, trips
        todo = pulls.plan()
    return None


@quick
@given(st.integers(0, 30), st.integers(0, 30))
def test_express_goes_first_but_leaves_the_main_lane_a_share(express: int, main: int) -> None:
    pulls = Pulls()
    queue: dict[Lane, int] = {"express": express, "main": main}
    taken: list[str] = []
    pulls.on_core_freed()
    while (answer := answer_all(pulls, queue)) is not None:
        taken.append(answer[0])
        known_to_be_quiet = not express and len(taken) > 1
        assert answer[1] <= (1 if known_to_be_quiet else 2)
        pulls.on_core_freed()

    assert len(taken) == express + main
    assert taken[: min(express, EXPRESS_RUN)] == ["express"] * min(express, EXPRESS_RUN)
    if main:
        longest = "".join(lane[0] for lane in taken[: _last(taken, "main") + 1]).split("m")
        assert max(map(len, longest)) <= EXPRESS_RUN


def _last(taken: list[str], lane: str) -> int:
    return len(taken) - 1 - taken[::-1].index(lane)
