"""Agents by their announcements, which come in any order and stop without a word."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from announcements import presence
from hypotheses import examples
from jetmap.dispatch.roster import Roster
from jetmap.wire.messages import FunctionRef
from jetmap.wire.presence import FunctionInfo, Presence
from jetmap.wire.protocol import PICKLES_PROTOCOL, PROTOCOL
from jetmap.wire.timing import GONE_AFTER
from jetmap.wire.versions import package_versions, pickles, python_version

quick = examples(100)
NAMES = ["f", "g"]


def presences(agent: st.SearchStrategy[str]) -> st.SearchStrategy[Presence]:
    # An offer is of one rank and one set of functions, whoever makes it.
    offers = st.sampled_from([("", 0, []), ("o1", 1, ["f"]), ("o2", 2, ["f", "g"]), ("o3", 3, [])])
    return st.builds(
        lambda agent, offer, cores, ready, draining, gone: presence(
            agent,
            offer=offer[0],
            rank=offer[1],
            functions=[FunctionInfo(name, doc=offer[0]) for name in offer[2]],
            cores=cores,
            ready=min(ready, cores),
            draining=draining,
            gone=gone,
        ),
        agent,
        offers,
        st.integers(1, 8),
        st.integers(0, 8),
        st.booleans(),
        st.sampled_from([False, False, False, True]),
    )


steps = st.lists(st.tuples(presences(st.sampled_from("abcd")), st.floats(0, 5)), max_size=20)


@quick
@given(steps)
def test_the_roster_is_what_was_said_last_and_not_long_ago(
    steps: list[tuple[Presence, float]],
) -> None:
    roster, now = Roster(), 0.0
    said: dict[str, tuple[Presence, float]] = {}
    for announced, pause in steps:
        now += pause
        roster.on_presence(announced, now)
        roster.expire(now)
        said[announced.agent] = announced, now
        said = {a: (p, at) for a, (p, at) in said.items() if not p.gone and now - at <= GONE_AFTER}
        there = [p for p, _ in said.values()]
        assert roster.agents == sorted(there, key=lambda p: (p.host, p.agent))

        active = [p for p in there if not p.draining]
        for offer in ("o1", "o2", "o3"):
            assert roster.cores(offer) == sum(p.cores for p in active if p.offer == offer)
            assert roster.is_served(offer) == any(p.offer == offer for p in there)
        for name in NAMES:
            having = [p for p in active if any(f.name == name for f in p.functions)]
            newest = max(having, key=lambda p: p.rank, default=None)
            assert roster.offers(name).newest == (newest.offer if newest else None)
            info = roster.offers(name).info
            assert (info.doc if info else None) == (newest.offer if newest else None)
        for status in roster.functions():
            having = [p for p in there if any(f.name == status.info.name for f in p.functions)]
            assert status.info.doc == max(having, key=lambda p: p.rank).offer
            assert sorted(status.agents) == sorted(p.host for p in having)
            assert status.cores == sum(p.cores for p in having if not p.draining)
            assert status.alive == any(p.ready and not p.draining for p in having)


@quick
@given(st.floats(0, 1000))
def test_a_frozen_process_credits_its_own_gap(gap: float) -> None:
    roster = Roster()
    roster.on_presence(presence(), 0.0)
    roster.credit(gap)
    roster.expire(gap + GONE_AFTER - 0.1)
    assert roster.agents
    roster.expire(gap + GONE_AFTER + 0.1)
    assert not roster.agents


def test_a_failure_counts_only_while_nobody_is_ready() -> None:
    roster = Roster()
    assert roster.failure is None
    roster.on_presence(presence("a", ready=0, failure="SyntaxError"), 0.0)
    assert roster.failure == "SyntaxError"
    roster.on_presence(presence("b", ready=1), 0.0)
    assert roster.failure is None


def test_a_function_that_an_agent_cannot_load_runs_elsewhere_or_is_refused() -> None:
    roster = Roster()
    info = FunctionInfo("f", module="m")
    offer: dict[str, Any] = {"offer": "o1", "rank": 1, "functions": [info, FunctionInfo("g")]}
    roster.on_presence(presence("a", **offer, broken={"m:f()": "no weights"}), 0.0)
    assert roster.offer("f", None) is None and roster.offer("g", None) == "o1"
    assert roster.broken("f", None) == ("m:f()", "no weights")
    assert roster.offers("f").info == info, "its schemas are known"
    assert roster.broken("f", FunctionRef("m", "f")) == ("m:f()", "no weights")
    assert roster.broken("f", FunctionRef("m", "f", value=b"x", digest="d")) is None
    roster.on_presence(presence("b", **(offer | {"offer": "o2", "rank": 2})), 0.0)
    assert roster.offer("f", None) == "o2" and roster.broken("f", None) is None
    roster.on_presence(presence("b", **offer, gone=True), 0.0)
    roster.on_presence(presence("a", **offer), 0.0)
    assert roster.offer("f", None) == "o1", "it is tried again"


def test_pickled_items_go_to_workers_that_load_them() -> None:
    roster = Roster()
    mine = pickles()
    here = {"python": python_version(), "packages": package_versions(), "protocol": PROTOCOL}
    by_name = FunctionRef("", "", pickles=mine, items=True)
    roster.on_presence(presence("a", offer="o1", rank=1, **here), 0.0)
    assert not roster.reads_pickles("f", mine) and roster.offer("f", by_name) is None
    # One that trusts its callers, with an older offer: new items are tagged.
    roster.on_presence(presence("b", offer="o0", rank=0, trusts=True, **here), 0.0)
    assert not roster.reads_pickles("f", mine) and roster.offer("f", by_name) == "o0"
    # With the newest: they are pickled, and stay with it when a newer offer comes.
    roster.on_presence(presence("b", offer="o2", rank=2, trusts=True, **here), 0.0)
    assert roster.reads_pickles("f", mine) and roster.offer("f", by_name) == "o2"
    roster.on_presence(presence("c", offer="o3", rank=3, **here), 0.0)
    assert not roster.reads_pickles("f", mine) and roster.offer("f", by_name) == "o2"
    assert roster.offer("f", None) == "o3"
    # A function that nobody offers is brought; one that is called by its name is not.
    assert roster.reads_pickles("g", mine) and roster.offer("g", by_name) is None
    assert roster.offer("g", FunctionRef("m", "g", pickles=mine)) == "o2"
    # Not those of other versions, nor older releases.
    assert not roster.reads_pickles("g", "Python 2.7, cloudpickle 0.1")
    older = {**here, "protocol": PICKLES_PROTOCOL - 1}
    roster.on_presence(presence("d", offer="o4", rank=4, trusts=True, **older), 0.0)
    assert not roster.reads_pickles("g", mine)
    # An older agent that joins in the middle of a map of pickled items gets none of them, with
    # whatever offer; it still runs functions that chunks bring.
    assert roster.offer("f", by_name) == "o2"
    brought = FunctionRef("m", "g", pickles=mine)
    assert roster.offer("g", brought) == "o4"
    assert roster.offer("g", structs.replace(brought, items=True)) == "o2"
