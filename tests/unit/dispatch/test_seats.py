"""The sharing of a function's limit among dispatchers."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.seats import NONE, step, without
from jetmap.wire.controls import Seats


@dataclass
class Member:
    """A dispatcher: chunks that it has out, may have out, and still has to send."""

    name: str
    out: int = 0
    share: int = 0
    waiting: int = 0
    sent: int = 0


class Table:
    """Dispatchers that take their steps in any order; each has chunks that last until they end."""

    def __init__(self, members: int, limit: int, random: Random) -> None:
        self.members = [Member(f"d{n}") for n in range(members)]
        self.limit, self.random = limit, random
        self.rows: dict[str, Seats] = {}

    def step(self, member: Member, *, may_keep: bool = False) -> None:
        found = step(
            self.rows,
            member.name,
            self.limit,
            useful=member.out + member.waiting,
            out=member.out,
            may_keep=may_keep,
            is_alive=lambda name: True,
        )
        self.rows, member.share = found.rows, found.share

    def send(self, member: Member) -> None:
        while member.waiting and member.out < member.share:
            member.waiting -= 1
            member.out += 1
            member.sent += 1

    def check(self) -> None:
        assert sum(seats.held for seats in self.rows.values()) <= self.limit
        assert sum(member.out for member in self.members) <= self.limit
        for member in self.members:
            assert member.out <= self.rows.get(member.name, NONE).held


@given(st.integers(1, 5), st.integers(1, 7), st.randoms(use_true_random=False))
@examples(100)
def test_the_limit_holds_in_any_order_of_steps(members: int, limit: int, random: Random) -> None:
    table = Table(members, limit, random)
    for _ in range(200):
        member = random.choice(table.members)
        event = random.randrange(4)
        if event == 0:
            member.waiting = random.randrange(10)
        elif event == 1 and member.out:
            member.out -= 1
        elif event == 2:
            table.send(member)
        else:
            table.step(member, may_keep=random.random() < 0.5)
        table.check()


@given(st.integers(1, 5), st.integers(1, 7), st.randoms(use_true_random=False))
@examples(100)
def test_every_dispatcher_gets_its_turn(members: int, limit: int, random: Random) -> None:
    table = Table(members, limit, random)
    for member in table.members:
        member.waiting = 10_000
    rounds = 60
    for _ in range(rounds):
        for member in random.sample(table.members, members):
            member.out = 0  # Its chunks end.
            table.step(member)
            table.send(member)
            table.check()
    sent = [member.sent for member in table.members]
    # Seats that change hands stay empty for a step; in random orders, at worst 0.36 are in use.
    assert sum(sent) >= 0.2 * limit * rounds
    assert min(sent) >= 0.4 * max(sent)


def test_one_dispatcher_alone_has_all_of_it() -> None:
    found = step({}, "a", 4, useful=9, out=0, may_keep=False, is_alive=bool)
    assert (found.share, found.rows["a"].held, found.rows["a"].wants) == (4, 4, True)
    again = step(found.rows, "a", 4, useful=9, out=4, may_keep=False, is_alive=bool)
    assert again.rows == found.rows  # Nothing is written while nobody else wants it.


def test_a_turn_goes_on_until_it_is_over() -> None:
    rows = {"a": Seats(1, False, 1), "b": Seats(0, True)}
    assert step(rows, "a", 1, useful=5, out=1, may_keep=True, is_alive=bool).share == 1
    over = step(rows, "a", 1, useful=5, out=1, may_keep=False, is_alive=bool)
    assert (over.share, over.rows["a"].held) == (0, 1)  # Its chunk ends first.
    given_up = step(over.rows, "a", 1, useful=5, out=0, may_keep=False, is_alive=bool)
    assert given_up.rows["a"] == Seats(0, True, 1)
    assert step(given_up.rows, "a", 1, useful=5, out=0, may_keep=True, is_alive=bool).share == 0
    assert step(given_up.rows, "b", 1, useful=5, out=0, may_keep=True, is_alive=bool).share == 1


def test_seats_of_the_dead_and_of_those_who_left_are_free() -> None:
    rows = {"dead": Seats(2, True, 7), "a": Seats(0, True)}
    found = step(rows, "a", 2, useful=5, out=0, may_keep=True, is_alive=lambda name: False)
    assert (found.share, set(found.rows)) == (2, {"a"})
    assert without(found.rows, "a") == {}


def test_a_lowered_limit_waits_for_what_is_out() -> None:
    rows = {"a": Seats(4, False, 1)}
    found = step(rows, "a", 1, useful=9, out=4, may_keep=True, is_alive=bool)
    assert (found.share, found.rows["a"].held) == (1, 4)
    found = step(found.rows, "a", 1, useful=9, out=0, may_keep=True, is_alive=bool)
    assert (found.share, found.rows["a"].held) == (1, 1)


def test_what_is_not_used_goes_to_others_at_once() -> None:
    rows = {"a": Seats(4, False, 1), "b": Seats(0, True)}
    found = step(rows, "a", 4, useful=1, out=1, may_keep=True, is_alive=bool)
    assert (found.share, found.rows["a"].held) == (1, 1)
    assert step(found.rows, "b", 4, useful=9, out=0, may_keep=True, is_alive=bool).share == 3
