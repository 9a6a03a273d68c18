"""The work of a dispatcher for each chunk and announcement, counted, in pools of any size."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from dispatching import FUNCTION, Parts, presence, report_of
from jetmap.dispatch.costs import CHUNKS_A_SECOND, Cutting
from jetmap.dispatch.roster import Roster
from jetmap.wire.messages import FunctionRef
from jetmap.wire.presence import Presence

POOLS = [1, 10, 1000]


def counted(act: Callable[[], Any]) -> int:
    """Count the interpreter's steps of a call."""
    steps = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return steps


counted(lambda: None)  # The first count of a process is 0 in Python 3.12.


class Pool(Parts):
    """A dispatcher's parts beside this number of agents, with a long map in progress."""

    def __init__(self, agents: int, ref: FunctionRef | None = None) -> None:
        super().__init__()
        self.agents = [
            presence(f"agent-{number}", trusts=ref is not None) for number in range(agents)
        ]
        self.roster.expire(1e9)
        for agent in self.agents:
            self.roster.on_presence(agent, 2e9)
        self.ref = ref
        self.run = self.open(1_000_000)
        self.cores = 4
        for _ in range(20):
            self.run.cost.learn(1, 1.0, 1)
        self.out = self.send()

    def chunk(self) -> None:
        """Process the result of a chunk, and send the next one."""
        run, flight = self.out.pop(0)
        self.maps.accept(report_of(run, flight, seconds=1.0), len(self.agents), 0.0)
        assert self.roster.offer(FUNCTION, self.ref) is not None
        assert self.roster.all_cores == len(self.agents)
        self.out += self.send()


@pytest.mark.parametrize("ref", [None, FunctionRef("tasks", "f")])
def test_a_chunk_costs_a_dispatcher_the_same_in_a_pool_of_any_size(ref: FunctionRef | None) -> None:
    steps = {}
    for agents in POOLS:
        pool = Pool(agents, ref)
        pool.chunk()
        steps[agents] = min(counted(pool.chunk) for _ in range(5))
    assert max(steps.values()) <= 1.2 * min(steps.values()), steps


def test_an_announcement_that_changes_nothing_costs_the_same_in_a_pool_of_any_size() -> None:
    steps = {}
    for agents in POOLS:
        pool = Pool(agents)
        pool.chunk()
        news = [replace_(agent, busy=1) for agent in pool.agents[:1]]
        steps[agents] = counted(lambda pool=pool, news=news: pool.roster.on_presence(news[0], 2e9))
        assert counted(lambda pool=pool: pool.roster.cores("offer")) < 20, "it is remembered"
    assert max(steps.values()) <= 1.2 * min(steps.values()), steps


@pytest.mark.parametrize(
    "changes",
    [{"cores": 7}, {"draining": True}, {"offer": "other"}, {"round_trip": 0.04}, {"gone": True}],
    ids=str,
)
def test_an_announcement_that_changes_something_costs_the_same(changes: dict[str, Any]) -> None:
    steps = {}
    for agents in (10, 100, 1000):
        pool = Pool(agents)
        pool.chunk()
        roster, news = pool.roster, replace_(pool.agents[0], **changes)

        def announce(roster: Roster = roster, news: Presence = news) -> None:
            roster.on_presence(news, 2e9)
            assert roster.all_cores and roster.round_trip < 1.0

        steps[agents] = counted(announce)
    assert max(steps.values()) <= 1.2 * min(steps.values()), steps


@pytest.mark.parametrize(
    "changes",
    [{"cores": 7}, {"draining": True}, {"gone": True}, {"offer": "other"}, {"round_trip": 0.04}],
    ids=str,
)
def test_an_announcement_that_changes_something_counts_at_once(changes: dict[str, Any]) -> None:
    pool = Pool(3)
    before = (pool.roster.all_cores, pool.roster.cores("offer"), pool.roster.round_trip)
    pool.roster.on_presence(replace_(pool.agents[0], **changes), 2e9)
    assert (pool.roster.all_cores, pool.roster.cores("offer"), pool.roster.round_trip) != before


def replace_(agent: Presence, **changes: Any) -> Presence:
    return msgspec.structs.replace(agent, **changes)


@pytest.mark.parametrize("cores", [1, 200, 1000, 16_000])
def test_chunks_of_large_pools_are_longer_so_that_they_do_not_become_more(cores: int) -> None:
    cutting = Cutting().fitted(cores, 0.0)
    assert cutting.seconds == max(Cutting().seconds, cores / 4_000)
    assert cores / cutting.seconds <= CHUNKS_A_SECOND
    assert replace(cutting, seconds=Cutting().seconds, cores=Cutting().cores) == Cutting()
