"""The load of a pool: above zero as soon as something waits, also without a worker."""

from __future__ import annotations

from activities import activity
from announcements import presence
from jetmap.monitoring.pool_view import PoolView
from jetmap.monitoring.scaling import Scale, scale_of
from jetmap.wire.activity import Activity, FunctionActivity
from jetmap.wire.controls import FunctionControl, PoolControl
from jetmap.wire.presence import FunctionInfo, Presence


def scale(*activities: Activity, agents: tuple[Presence, ...] = ()) -> Scale:
    view = PoolView("p")
    for each in activities:
        view.on_activity(each, 1.0)
    view.on_agents(agents, 1.0)
    return scale_of(view, 30.0)


def test_an_idle_pool_wants_nothing() -> None:
    assert scale() == Scale(0.0, 0, 0, 0)
    assert scale(activity(), agents=(presence(cores=4),)) == Scale(0.0, 0, 4, 0)


def test_what_waits_without_a_worker_wants_one() -> None:
    assert scale(activity(waiting=1, waiting_seconds=0.05, unknown=1)).wanted_cores >= 1
    assert scale(activity(waiting=3, waiting_seconds=0.003)).wanted_cores == 1
    assert scale(activity(refused={"no-workers": 2})).wanted_cores == 1
    assert scale(activity(refused={"too-many-maps": 9})).wanted_cores == 0


def test_a_backlog_wants_the_cores_that_end_it_in_time() -> None:
    busy = presence(cores=4, busy=4)
    found = scale(
        activity("d1", waiting=900, waiting_seconds=300.0),
        activity("d2", waiting=1, waiting_seconds=30.0),
        agents=(busy,),
    )
    assert found == Scale(330.0, 0, 4, 4 + 11)


def test_what_is_paused_wants_nothing_and_what_is_limited_only_so_much() -> None:
    view = PoolView("p")
    fixed = (0, 0.0, 0.0, 0, {}, 0.0, 0.0, 100, 300.0)
    functions = [FunctionActivity("f", *fixed), FunctionActivity("g", *fixed, is_known=False)]
    view.on_activity(
        activity(waiting=200, waiting_seconds=600.0, unknown=100, functions=functions), 1.0
    )
    assert scale_of(view, 30.0) == Scale(600.0, 100, 0, 20 + 1)
    view.control = PoolControl(functions={"f": FunctionControl(max_parallel=2)})
    assert scale_of(view, 30.0).wanted_cores == 2 + 10 + 1
    view.on_agents([presence(cores=1, functions=[FunctionInfo("f", max_parallel=3)])], 1.0)
    assert scale_of(view, 30.0).wanted_cores == 2 + 10 + 1, "people's limit replaces the code's"
    view.control = PoolControl()
    assert scale_of(view, 30.0).wanted_cores == 3 + 10 + 1, "its code limits it"
    view.on_agents([presence(cores=0, functions=[FunctionInfo("f")])], 1.0)
    view.control = PoolControl(functions={"g": FunctionControl(paused=True)})
    assert scale_of(view, 30.0) == Scale(300.0, 0, 0, 10)
    view.control = PoolControl(paused=True)
    assert scale_of(view, 30.0) == Scale(0.0, 0, 0, 0)


def test_items_of_unknown_cost_at_most_double_the_pool() -> None:
    found = scale(
        activity(waiting=10**6, waiting_seconds=0.0, unknown=10**6),
        agents=(presence(cores=8, busy=2),),
    )
    assert (found.unknown_items, found.wanted_cores) == (10**6, 2 + 8)


def test_a_draining_host_takes_nothing_more() -> None:
    assert scale(agents=(presence(cores=8, busy=8, draining=True),)) == Scale(0.0, 0, 0, 0)
