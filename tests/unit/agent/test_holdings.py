"""An agent's holdings, with deliveries repeated, and answers late, lost or repeated."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hypotheses import examples
from jetmap.agent.holdings import HeldChunk, Holdings, Lease
from jetmap.wire.messages import ChunkHead
from jetmap.wire.timing import BEAT, GONE_KEPT, LOOK, SILENCE


def head(number: int, inbox: str = "dispatcher", map: str = "m") -> ChunkHead:
    return ChunkHead(map, number, 1, "f", "json", 10 * number, 10, inbox, None, 0.1)


def hold(
    holdings: Holdings, chunk: ChunkHead, lease: Lease, now: float, sink: Any = None
) -> HeldChunk:
    """Add a delivery; return the chunk that is held from now on."""
    holdings.add(HeldChunk(chunk, [lease], b"", 0, chunk.start, sink), now)
    held = holdings.get(chunk.map, chunk.number)
    assert held is not None
    return held


class Holds(RuleBasedStateMachine):
    """An agent that holds chunks of three dispatchers."""

    @initialize()
    def begin(self) -> None:
        self.holdings = Holdings()
        self.now = 50.0
        self.parts: dict[tuple[str, int], set[int]] = {}  # Unconfirmed tokens by chunk.
        self.sent_at: dict[int, float] = {}
        self.held: dict[tuple[str, int], HeldChunk] = {}
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
            held = hold(self.holdings, head(number, f"i{inbox}", key[0]), lease, self.now)
            assert held is self.held.get(key, held), "a chunk is held once"
            self.held[key] = held
            self.parts.setdefault(key, set())
            self.leases.setdefault(key, []).append(lease)
            self.answered.setdefault(f"i{inbox}", self.now)
            assert held.leases == self.leases[key]

    @rule(data=st.data(), last=st.booleans())
    def sent(self, data: st.DataObject, last: bool) -> None:
        """A delivery with reports of one dispatcher's chunks, each of several perhaps."""
        inbox = data.draw(st.sampled_from(["i0", "i1", "i2"]))
        keys = [k for k, h in self.held.items() if h.head.inbox == inbox and not h.finished]
        if keys:
            chosen = data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=4))
            for key in chosen:
                self.held[key].unsent += 1
            token = self.holdings.next_token()
            assert token not in self.tokens
            self.holdings.on_sent([self.held[k] for k in chosen], inbox, b"%d" % token, self.now)
            self.tokens.append(token)
            self.sent_at[token] = self.now
            for key in chosen:
                self.held[key].finished = last
                self.parts[key].add(token)

    @rule(data=st.data())
    def confirmed(self, data: st.DataObject) -> None:
        if not self.tokens:
            return
        tokens = data.draw(st.lists(st.sampled_from(self.tokens) | st.just(10**6), max_size=4))
        done = self.holdings.confirm(tokens)
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
        self.holdings.on_answer(f"i{inbox}", self.now)
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
        gone = self.holdings.take_abandoned(self.now)
        self.looked = True
        silent = {i for i, at in self.answered.items() if self.now - at > SILENCE + 1e-6}
        barely = {i for i, at in self.answered.items() if abs(self.now - at - SILENCE) <= 1e-6}
        inboxes = {held.head.inbox for held in gone}
        assert silent <= inboxes <= silent | barely
        assert {h.key for h in gone} == {
            key for key, held in self.held.items() if held.head.inbox in inboxes
        }
        assert all(self.holdings.is_gone(inbox) for inbox in inboxes)
        again = self.holdings.take_overdue(self.now)
        expected = {
            token
            for tokens in self.parts.values()
            for token in tokens
            if self.now - self.sent_at[token] >= BEAT
        }
        assert sorted(int(sent.delivery) for sent in again) == sorted(expected)
        for sent in again:
            assert {(h.head.inbox, int(sent.delivery) in h.unconfirmed) for h in sent.chunks} == {
                (sent.inbox, True)
            }
        self.sent_at.update(dict.fromkeys(expected, self.now))

    def forget(self, key: tuple[str, int]) -> None:
        held = self.held.pop(key)
        del self.parts[key], self.leases[key]
        for lease in held.leases:
            shared = any(lease in others for others in self.leases.values())
            if lease.release():
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


Holds.TestCase.settings = examples(60, stateful_step_count=40)
TestHolds = Holds.TestCase


def test_an_old_holding_does_not_drop_its_successor() -> None:
    """A chunk was let go, and came again while its first worker had not ended yet."""
    holdings = Holdings()
    old = hold(holdings, head(1), Lease("ack1", 1), 0.0)
    holdings.drop(old)
    new = hold(holdings, head(1), Lease("ack2", 1), 1.0)
    assert new is not old
    holdings.drop(old)
    assert holdings.get("m", 1) is new
    assert list(holdings) == [new]


def test_a_dispatcher_that_was_given_up_is_remembered_for_a_while() -> None:
    holdings = Holdings()
    held = hold(holdings, head(1), Lease("ack", 1), 0.0)
    now, gone = 0.0, list[Any]()
    while not gone:
        now += LOOK
        gone = holdings.take_abandoned(now)
    assert gone == [held] and SILENCE < now <= SILENCE + 2 * LOOK

    holdings.drop(held)
    assert holdings.is_gone("dispatcher")
    until = now + GONE_KEPT
    while now < until:
        now += LOOK
        assert not holdings.take_abandoned(now)
    assert not holdings.is_gone("dispatcher")


def test_a_chunk_is_not_done_while_a_report_waits_to_be_sent() -> None:
    holdings = Holdings()
    held = hold(holdings, head(1), Lease("ack", 1), 0.0)
    held.unsent += 1
    token = holdings.next_token()
    holdings.on_sent([held], "dispatcher", b"first", 0.0)
    held.unsent += 1  # The last report is with its sink.
    held.finished = True
    assert holdings.confirm([token]) == [] and holdings.get("m", 1) is held
    token = holdings.next_token()
    holdings.on_sent([held], "dispatcher", b"last", 0.0)
    assert holdings.confirm([token]) == [held] and len(holdings) == 0
