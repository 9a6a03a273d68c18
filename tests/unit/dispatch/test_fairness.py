"""Maps share by weight."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.fairness import DeficitRoundRobin

quick = examples(60)

QUANTUM = 0.05
costs = st.floats(0.001, 0.5)


def always(_: int) -> bool:
    return True


@quick
@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 4.0]), costs), min_size=1, max_size=5),
    st.integers(0, 300),
)
def test_shares_are_by_weight(members: list[tuple[float, float]], served: int) -> None:
    """Within one round and one chunk, at any moment, whatever a member's chunks take."""
    fair = DeficitRoundRobin[int](QUANTUM)
    for number, (weight, _) in enumerate(members):
        fair.add(number, weight)
    spent = Counter[int]()
    for _ in range(served):
        member = fair.next(always)
        assert member is not None
        fair.charge(member, members[member][1])
        spent[member] += members[member][1]  # type: ignore[assignment]

    shares = [spent[n] / weight for n, (weight, _) in enumerate(members)]
    bounds = [QUANTUM + cost / weight for weight, cost in members]
    for (a, bound), (b, other) in itertools.combinations(zip(shares, bounds, strict=True), 2):
        assert abs(a - b) <= 2 * QUANTUM + bound + other


@quick
@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1e5)), min_size=1, max_size=30),
    st.sets(st.integers(0, 29)),
)
def test_a_turn_is_found_soon_however_deep_the_debts(
    members: list[tuple[float, float]], idle: set[int]
) -> None:
    fair = DeficitRoundRobin[int](QUANTUM)
    for number, (weight, debt) in enumerate(members):
        fair.add(number, weight)
        fair.charge(number, debt)
    asked = 0

    def can_send(member: int) -> bool:
        nonlocal asked
        asked += 1
        return member not in idle

    able = set(range(len(members))) - idle
    member = fair.next(can_send)
    assert (member in able) if able else member is None
    assert asked <= 5 * len(members)


@quick
@given(st.integers(1, 5), st.randoms(use_true_random=False))
def test_nobody_starves_while_others_come_and_go(members: int, random: Random) -> None:
    fair = DeficitRoundRobin[int](QUANTUM)
    for number in range(members):
        fair.add(number)
    waiting = Counter[int]()
    ready = set(range(members))
    for _ in range(300):
        if random.random() < 0.2:
            ready ^= {random.randrange(1, members)} if members > 1 else set()
        member = fair.next(ready.__contains__)
        assert member in ready
        fair.charge(member, QUANTUM)
        for other in range(members):
            waiting[other] = 0 if other == member or other not in ready else waiting[other] + 1
        assert max(waiting.values()) <= 3 * members


def all_want_turns(fair: DeficitRoundRobin[str], count: int) -> Iterator[Counter[str]]:
    """Give out turns of equal cost; yield each member's number of them after each."""
    turns = Counter[str]()
    for _ in range(count):
        member = fair.next(lambda _: True)
        assert member is not None
        fair.charge(member, QUANTUM)
        turns[member] += 1
        yield turns


def test_who_was_idle_has_saved_nothing_up() -> None:
    fair = DeficitRoundRobin[str](QUANTUM)
    fair.add("busy")
    fair.add("late")
    for _ in range(100):
        assert fair.next(lambda m: m == "busy") == "busy"
        fair.charge("busy", QUANTUM)

    for turns in all_want_turns(fair, 40):
        assert abs(turns["busy"] - turns["late"]) <= 3


def test_what_comes_back_to_one_that_was_alone_is_not_saved_up() -> None:
    fair = DeficitRoundRobin[str](QUANTUM)
    fair.add("alone")
    for _ in range(8):
        assert fair.next(lambda _: True) == "alone"
        fair.charge("alone", 4 * QUANTUM)
    fair.add("late")
    for _ in range(8):
        fair.refund("alone", 4 * QUANTUM)
    for turns in all_want_turns(fair, 20):
        assert abs(turns["alone"] - turns["late"]) <= 2
    fair.refund("nobody", QUANTUM)


def test_members_leave() -> None:
    fair = DeficitRoundRobin[str](QUANTUM)
    assert fair.next(lambda _: True) is None
    fair.add("a")
    fair.add("b")
    fair.remove("b")
    fair.remove("b")
    fair.charge("b", 1.0)
    assert len(fair) == 1
    assert fair.next(lambda _: True) == "a"
    assert fair.next(lambda _: False) is None
