"""An agent's pulls and holdings, against model servers and dispatchers that do anything."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jetmap.agent.holdings import BEAT, GONE_KEPT, LOOK, SILENCE, Holding, Holdings, Lease
from jetmap.agent.pulls import EXPRESS_RUN, Pull, Pulls
from jetmap.messages import ChunkHead, Lane

LANES: tuple[Lane, ...] = ("express", "main")
lanes = st.sampled_from(LANES)
quick = settings(max_examples=100, deadline=None)


@dataclass(eq=False)
class Answer:
    lane: Lane
    waited: bool
    full: bool


class Pulling(RuleBasedStateMachine):
    """An agent, and a server with two queues where parked pulls are answered first come first
    served. Messages of one direction on one subscription keep their order; others do not."""

    @initialize(cores=st.integers(1, 4))
    def begin(self, cores: int) -> None:
        self.pulls = Pulls()
        self.starting, self.busy = cores, 0
        self.asked = deque[Pull]()
        self.queue: dict[Lane, int] = {"express": 0, "main": 0}
        self.parked: dict[Lane, int] = {"express": 0, "main": 0}
        self.answers: list[Answer] = []

    # The agent

    def plan(self) -> None:
        self.asked.extend(self.pulls.plan())

    @rule()
    def worker_is_ready(self) -> None:
        if self.starting:
            self.starting -= 1
            self.pulls.core_freed()
            self.plan()

    @rule()
    def chunk_is_done(self) -> None:
        if self.busy:
            self.busy -= 1
            self.pulls.core_freed()
            self.plan()

    @rule()
    def worker_dies(self) -> None:
        """An idle one: its pulls stay out."""
        if self.pulls.idle:
            self.pulls.core_lost()
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
                self.pulls.expired(answer.lane)
            else:
                self.pulls.empty(answer.lane)
            self.plan()
            return
        idle = self.pulls.idle
        if self.pulls.delivered(answer.lane, waited=answer.waited):
            assert idle > 0, "a chunk was started on a busy core"
            self.busy += 1
        else:
            assert idle == 0, "a chunk was handed back beside an idle core"
            self.publish(answer.lane)

    @rule(lane=lanes)
    def lane_was_silent(self, lane: Lane) -> None:
        """The broker lost the lane's pulls, and those answers that were on their way."""
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
    def lane_was_wrongly_given_up(self, lane: Lane) -> None:
        """Only slow: the pulls are still there, and more are sent."""
        self.pulls.forget(lane)
        self.plan()

    # The server

    @rule(lane=lanes)
    def publish(self, lane: Lane) -> None:
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
    def parked_pull_expires(self, lane: Lane) -> None:
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
        if self.pulls.idle:
            assert self.queue == {"express": 0, "main": 0}
            assert all(self.parked[lane] >= self.pulls.idle for lane in LANES)


Pulling.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestPulling = Pulling.TestCase


def answer_all(
    pulls: Pulls, queue: dict[Lane, int], planned: list[Pull]
) -> tuple[Lane, int] | None:
    """Lets a server answer; the lane that gave the next chunk, and the round trips it took."""
    trips, todo = 0, planned
    while todo:
        trips += 1
        following: list[Pull] = []
        for pull in todo:
            if queue[pull.lane]:
                queue[pull.lane] -= 1
                assert pulls.delivered(pull.lane, waited=pull.wait)
                return pull.lane, trips
            if not pull.wait:
                pulls.empty(pull.lane)
                following += pulls.plan()
        todo = following
    return None


@quick
@given(st.integers(0, 30), st.integers(0, 30))
def test_express_goes_first_but_leaves_the_main_lane_a_share(express: int, main: int) -> None:
    pulls, queue = Pulls(), {"express": express, "main": main}
    taken: list[str] = []
    pulls.core_freed()
    while (answer := answer_all(pulls, queue, pulls.plan())) is not None:  # type: ignore[arg-type]
        taken.append(answer[0])
        assert answer[1] <= 2
        pulls.core_freed()

    assert len(taken) == express + main
    assert taken[: min(express, EXPRESS_RUN)] == ["express"] * min(express, EXPRESS_RUN)
    if main:
        longest = "".join(lane[0] for lane in taken[: _last(taken, "main") + 1]).split("m")
        assert max(map(len, longest)) <= EXPRESS_RUN


def _last(taken: list[str], lane: str) -> int:
    return len(taken) - 1 - taken[::-1].index(lane)


# Holdings


def head(number: int, inbox: str = "dispatcher", map: str = "m") -> ChunkHead:
    return ChunkHead(map, number, 1, "f", "json", 10 * number, 10, inbox, None, 0.1)


class Holds(RuleBasedStateMachine):
    """An agent that holds chunks of three dispatchers, with answers late, lost or repeated."""

    @initialize()
    def begin(self) -> None:
        self.holdings = Holdings()
        self.now = 50.0
        self.parts: dict[tuple[str, int], set[int]] = {}  # Unconfirmed tokens by chunk.
        self.sent_at: dict[int, float] = {}
        self.held: dict[tuple[str, int], Holding] = {}
        self.leases: dict[tuple[str, int], list[Lease]] = {}
        self.messages = 0
        self.over: set[str] = set()
        self.tokens: list[int] = []
        self.answered: dict[str, float] = {}
        self.looked = False

    @rule(numbers=st.sets(st.integers(1, 5), min_size=1), inbox=st.integers(0, 2))
    def delivered(self, numbers: set[int], inbox: int) -> None:
        """A message, of one chunk or several; perhaps not for the first time."""
        self.messages += 1
        lease = Lease(f"ack{self.messages}", len(numbers))
        for number in numbers:
            key = (f"map{inbox}", number)
            held = self.holdings.take(head(number, f"i{inbox}", key[0]), lease, b"", 0, self.now)
            assert held is self.held.get(key, held), "a chunk is held once"
            self.held[key] = held
            self.parts.setdefault(key, set())
            self.leases.setdefault(key, []).append(lease)
            self.answered.setdefault(f"i{inbox}", self.now)
            assert held.leases == self.leases[key]

    @rule(data=st.data(), last=st.booleans())
    def part_sent(self, data: st.DataObject, last: bool) -> None:
        open_ones = [key for key, held in self.held.items() if not held.finished]
        if open_ones:
            key = data.draw(st.sampled_from(open_ones))
            held = self.held[key]
            held.finished = last
            token = self.holdings.next_token()
            assert token not in self.tokens
            self.holdings.sent(held, b"%d" % token, self.now)
            self.tokens.append(token)
            self.parts[key].add(token)
            self.sent_at[token] = self.now

    @rule(data=st.data())
    def confirmed(self, data: st.DataObject) -> None:
        if not self.tokens:
            return
        tokens = data.draw(st.lists(st.sampled_from(self.tokens) | st.just(10**6), max_size=4))
        done = self.holdings.confirmed(tokens)
        expected = []
        for key, held in list(self.held.items()):
            confirmed = self.parts[key] & set(tokens)
            self.parts[key] -= confirmed
            if confirmed and held.finished and not self.parts[key]:
                expected.append(held)
                self.forget(key)
        assert sorted(h.key for h in done) == sorted(h.key for h in expected)
        assert all(h.is_done for h in done)

    @rule(data=st.data())
    def dropped(self, data: st.DataObject) -> None:
        if self.held:
            key = data.draw(st.sampled_from(list(self.held)))
            held = self.held[key]
            self.holdings.drop(held)
            self.holdings.drop(held)
            self.forget(key)

    @rule(inbox=st.integers(0, 2))
    def dispatcher_answers(self, inbox: int) -> None:
        self.holdings.heard(f"i{inbox}", self.now)
        if f"i{inbox}" in self.answered:
            self.answered[f"i{inbox}"] = self.now

    @rule(steps=st.integers(1, 12))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.now += LOOK
            self.look()

    @rule(gap=st.floats(BEAT + LOOK + 0.1, 1000))
    def frozen(self, gap: float) -> None:
        self.now += gap
        credit = gap - LOOK
        if self.looked:
            self.answered = {inbox: at + credit for inbox, at in self.answered.items()}
        self.look()

    def look(self) -> None:
        gone = self.holdings.gone(self.now)
        self.looked = True
        silent = {i for i, at in self.answered.items() if self.now - at > SILENCE + 1e-6}
        barely = {i for i, at in self.answered.items() if abs(self.now - at - SILENCE) <= 1e-6}
        inboxes = {held.head.inbox for held in gone}
        assert silent <= inboxes <= silent | barely
        assert {h.key for h in gone} == {
            key for key, held in self.held.items() if held.head.inbox in inboxes
        }
        assert all(self.holdings.is_gone(inbox) for inbox in inboxes)
        again = self.holdings.overdue(self.now)
        expected = {
            token
            for tokens in self.parts.values()
            for token in tokens
            if self.now - self.sent_at[token] >= BEAT
        }
        assert sorted(int(delivery) for _, delivery in again) == sorted(expected)
        assert all(int(delivery) in held.unconfirmed for held, delivery in again)
        self.sent_at.update(dict.fromkeys(expected, self.now))

    def forget(self, key: tuple[str, int]) -> None:
        held = self.held.pop(key)
        del self.parts[key], self.leases[key]
        for lease in held.leases:
            shared = any(lease in others for others in self.leases.values())
            if lease.is_over():
                assert lease.ack not in self.over, "a message is acknowledged once"
                assert not shared
                self.over.add(lease.ack)
            else:
                assert shared
        if not any(h.head.inbox == held.head.inbox for h in self.held.values()):
            del self.answered[held.head.inbox]

    @invariant()
    def claims_name_what_is_held(self) -> None:
        if not hasattr(self, "holdings"):
            return
        assert len(self.holdings) == len(self.held)
        assert sorted(self.holdings.leases()) == sorted(
            {leases[-1].ack for leases in self.leases.values()}
        )
        claims = self.holdings.claims({key: 7 for key in self.held})
        named = {
            (inbox, entry.map, entry.number) for inbox, held in claims.items() for entry in held
        }
        assert named == {(h.head.inbox, *key) for key, h in self.held.items()}
        for map, number in self.held:
            assert self.holdings.get(map, number) is self.held[map, number]
            assert self.held[map, number] in self.holdings.of_map(map)


Holds.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestHolds = Holds.TestCase


def test_an_old_holding_does_not_drop_its_successor() -> None:
    """A chunk was let go, and came again while its first worker had not ended yet."""
    holdings = Holdings()
    old = holdings.take(head(1), Lease("ack1", 1), b"", 0, 0.0)
    holdings.drop(old)
    new = holdings.take(head(1), Lease("ack2", 1), b"", 0, 1.0)
    assert new is not old
    holdings.drop(old)
    assert holdings.get("m", 1) is new
    assert list(holdings) == [new]


def test_a_dispatcher_that_was_given_up_is_remembered_for_a_while() -> None:
    holdings = Holdings()
    held = holdings.take(head(1), Lease("ack", 1), b"", 0, 0.0)
    now, gone = 0.0, list[Any]()
    while not gone:
        now += LOOK
        gone = holdings.gone(now)
    assert gone == [held] and SILENCE < now <= SILENCE + 2 * LOOK

    holdings.drop(held)
    assert holdings.is_gone("dispatcher")
    until = now + GONE_KEPT
    while now < until:
        now += LOOK
        assert not holdings.gone(now)
    assert not holdings.is_gone("dispatcher")
