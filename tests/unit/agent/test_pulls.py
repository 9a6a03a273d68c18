"""An agent's pulls, against a model of a server and messages in any order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hypotheses import examples
from jetmap.agent.pulls import EXPRESS_RUN, AgentLane, Pull, Pulls, Verdict
from jetmap.wire.messages import Lane

LANES: tuple[AgentLane, ...] = ("express", "main", "local")
lanes = st.sampled_from(LANES)
quick = examples(100)


@dataclass(eq=False)
class Answer:
    lane: AgentLane
    waited: bool
    full: bool


class Pulling(RuleBasedStateMachine):
    """An agent, and a server with two queues where parked pulls are answered first come first
    served. Messages of one direction on one subscription keep their order; others do not."""

    @initialize(cores=st.integers(1, 4), local=st.booleans())
    def begin(self, cores: int, local: bool) -> None:
        """local: it is the agent of a `jetmap up`, which has a lane of its own."""
        self.pulls = Pulls(local=local)
        self.lanes = LANES if local else LANES[:2]
        self.starting, self.busy, self.held = cores, 0, 0
        self.asked = deque[Pull]()
        self.queue: dict[AgentLane, int] = dict.fromkeys(LANES, 0)
        self.parked: dict[AgentLane, int] = dict.fromkeys(LANES, 0)
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
            kinds = list(dict.fromkeys((a.lane, a.waited) for a in self.answers))
            lane, waited = data.draw(st.sampled_from(kinds))
            first = next(a for a in self.answers if (a.lane, a.waited) == (lane, waited))
            self.receive(first)

    def receive(self, answer: Answer) -> None:
        self.answers.remove(answer)
        if not answer.full:
            if answer.waited:
                self.pulls.on_expired(answer.lane)
            else:
                self.pulls.on_empty(answer.lane)
            self.plan()
            return
        idle = self.pulls.idle
        verdict = self.pulls.on_delivered(answer.lane, waited=answer.waited)
        if verdict is Verdict.HOLD:
            assert answer.lane == "main"
            assert any(pull.lane == "express" for pull in self.asked) or any(
                a.lane == "express" for a in self.answers
            ), "a chunk waits for an answer that never comes"
            self.held += 1
        else:
            self.judged(verdict, answer.lane, idle)
        self.plan()

    def judged(self, verdict: Verdict, lane: AgentLane, idle: int) -> None:
        if verdict is Verdict.TAKE:
            assert idle > 0, "a chunk was started on a busy core"
            self.busy += 1
        else:
            assert idle == 0, "a chunk was handed back beside an idle core"
            self.publish(lane)

    def settle(self) -> None:
        idle = self.pulls.idle
        while (verdict := self.pulls.settle_held()) is not None:
            self.held -= 1
            self.judged(verdict, "main", idle)
            idle = self.pulls.idle

    @rule(lane=lanes)
    def lane_was_silent(self, lane: AgentLane) -> None:
        """The broker lost the lane's pulls, and those answers that were on their way."""
        if lane not in self.lanes:
            return
        self.parked[lane] = 0
        self.asked = deque(pull for pull in self.asked if pull.lane != lane)
        lost = [a for a in self.answers if a.lane == lane]
        self.answers = [a for a in self.answers if a.lane != lane]
        self.pulls.forget(lane)
        for answer in lost:
            if answer.full:
                self.publish(lane)
        self.plan()

    @rule(lane=lanes)
    def lane_was_wrongly_given_up(self, lane: AgentLane) -> None:
        """Only slow: the pulls are still there, and more are sent."""
        if lane not in self.lanes:
            return
        self.pulls.forget(lane)
        self.plan()

    # The server

    @rule(lane=lanes)
    def publish(self, lane: AgentLane) -> None:
        if lane not in self.lanes:
            return
        if self.parked[lane]:
            self.parked[lane] -= 1
            self.answers.append(Answer(lane, True, True))
        else:
            self.queue[lane] += 1

    @rule(count=st.integers(1, 4))
    def pull_arrives(self, count: int) -> None:
        for _ in range(min(count, len(self.asked))):
            pull = self.asked.popleft()
            if self.queue[pull.lane]:
                self.queue[pull.lane] -= 1
                self.answers.append(Answer(pull.lane, pull.wait, True))
            elif pull.wait:
                self.parked[pull.lane] += 1
            else:
                self.answers.append(Answer(pull.lane, False, False))

    @rule(lane=lanes)
    def parked_pull_expires(self, lane: AgentLane) -> None:
        if self.parked[lane]:
            self.parked[lane] -= 1
            self.answers.append(Answer(lane, True, False))

    # What must hold

    @invariant()
    def idle_cores_are_counted(self) -> None:
        if hasattr(self, "pulls"):
            assert self.pulls.idle >= 0
            assert len(self.asked) < 200

    def teardown(self) -> None:
        """All settles: no core idles beside a chunk, and idle ones wait at both lanes."""
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
        if self.pulls.idle:
            assert not any(self.queue.values())
            assert all(self.parked[lane] >= self.pulls.idle for lane in self.lanes)


Pulling.TestCase.settings = examples(120, stateful_step_count=60)
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
