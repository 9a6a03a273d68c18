"""The pulls of an agent that takes every chunk."""

from __future__ import annotations

from jetmap.agent.pulls import Pull, Verdict
from jetmap.agent.standing_pulls import CHUNKS, StandingPulls

BOTH = [Pull("express", True, chunks=CHUNKS), Pull("main", True, chunks=CHUNKS)]


def opened() -> StandingPulls:
    pulls = StandingPulls()
    assert pulls.plan() == [], "no core is ready"
    pulls.on_core_freed()
    assert pulls.plan() == BOTH
    return pulls


def test_one_pull_at_each_lane_lets_all_chunks_through() -> None:
    pulls = opened()
    for _ in range(CHUNKS - 1):
        assert pulls.on_delivered("main", waited=True) is Verdict.TAKE
        assert pulls.plan() == [] and pulls.settle_held() is None
    assert pulls.on_delivered("main", waited=True) is Verdict.TAKE
    assert pulls.plan() == BOTH[1:], "that was the last chunk of its pull"
    assert pulls.plan() == []


def test_a_pull_that_has_ended_or_was_lost_is_sent_again() -> None:
    pulls = opened()
    pulls.on_delivered("express", waited=True)
    pulls.on_expired("express")
    assert pulls.plan() == BOTH[:1]
    for lane in ("express", "main"):
        assert pulls.out(lane) == 1
        pulls.forget(lane)
        assert pulls.out(lane) == 0
    assert pulls.plan() == BOTH


def test_a_core_that_is_lost_changes_nothing() -> None:
    pulls = opened()
    pulls.on_core_lost()
    pulls.on_core_lost()
    assert pulls.plan() == [] and pulls.on_delivered("main", waited=True) is Verdict.TAKE
