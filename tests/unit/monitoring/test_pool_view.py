"""The view of a pool: each thing once, ages on one clock, differences that add up to the whole."""

from __future__ import annotations

import random

import msgspec
import pytest

from activities import activity, failure, map_of
from announcements import presence
from jetmap.monitoring.pool_view import SECTIONS, Document, PoolView
from jetmap.wire.activity import Activity, FunctionActivity
from jetmap.wire.controls import FunctionControl, PoolControl
from jetmap.wire.presence import CoreStatus, FunctionInfo, Presence


def apply(document: Document, changes: Document) -> Document:
    """Apply a difference as the page does."""
    result = dict(document)
    for key, value in changes.items():
        if key in SECTIONS:
            rows = dict(result.get(key, {}))
            for name, row in value.items():
                if row is None:
                    rows.pop(name, None)
                else:
                    rows[name] = row
            result[key] = rows
        else:
            result[key] = value
    return result


def test_each_map_is_there_once_whoever_announces_it() -> None:
    view = PoolView("p")
    view.on_activity(activity("d1", maps=[map_of("j", kind="job", done=10, ended=1.0)]), 10.0)
    view.on_activity(activity("d2", maps=[map_of("j", kind="job", done=9)]), 10.0)
    document = view.advance(10.0)
    assert list(document["maps"]) == ["j"] and document["maps"]["j"]["done"] == 9
    assert document["totals"]["open"] == 1
    assert view.owner_of("j") in ("i.d1", "i.d2") and view.kind_of("j") == "job"
    assert view.owner_of("x") is None


def test_an_old_announcement_changes_nothing_and_a_goodbye_ends_it() -> None:
    view = PoolView("p")
    view.on_activity(activity(sequence=5, items=50), 10.0)
    view.on_activity(activity(sequence=4, items=40), 11.0)
    assert view.advance(11.0)["totals"]["items"] == 50
    view.on_activity(activity(sequence=6, gone=True), 12.0)
    assert view.advance(12.0)["callers"] == {"d1": None}


def test_times_come_from_ages_and_do_not_shake() -> None:
    view = PoolView("p", epoch=1_000.0)
    view.on_activity(activity(maps=[map_of(age=4.0, oldest=0.0)], sequence=1), 100.0)
    assert view.advance(100.0)["maps"]["m1"]["started"] == 96.0
    view.on_activity(activity(maps=[map_of(age=6.3, oldest=0.0)], sequence=2), 102.2)
    assert "maps" not in view.advance(102.2), "the same moment, to a second"


@pytest.mark.parametrize("seed", range(5))
def test_differences_add_up_to_the_whole(seed: int) -> None:
    rnd = random.Random(seed)
    view = PoolView("p")
    shown = view.snapshot()
    for step in range(40):
        now = float(step)
        for caller in range(3):
            if rnd.random() < 0.7:
                maps = [map_of(f"m{rnd.randrange(9)}", done=rnd.randrange(100)) for _ in range(3)]
                functions = [FunctionActivity("f", step, 1.0, 2.0, 0, {50: step}, 1.0, 1.0)]
                view.on_activity(
                    activity(
                        f"d{caller}", step, maps=maps, functions=functions, failures=[failure()],
                        rate=rnd.random(), express={60 + rnd.randrange(9): 3},
                    ),
                    now,
                )  # fmt: skip
        agents = [
            presence(f"a{n}", workers=[CoreStatus(1, 0, rnd.choice(["idle", "busy"]), "f")])
            for n in range(4)
            if rnd.random() < 0.9
        ]
        view.on_agents(agents, now)
        shown = apply(shown, view.advance(now))
        whole = view.snapshot()
        assert {**shown, "history": whole["history"]} == whole


def test_hosts_have_a_state_and_a_character_for_each_core() -> None:
    view = PoolView("p")
    cores = [
        CoreStatus(1, 0, "busy", "f"), CoreStatus(2, 1, "busy", "g"), CoreStatus(3, 2, "idle"),
        CoreStatus(4, 3, "starting"), CoreStatus(5, 4, "failed"),
    ]  # fmt: skip
    infos = [FunctionInfo("f"), FunctionInfo("g")]
    view.on_agents([presence("a", workers=cores, cores=5, functions=infos, memory_kills=2)], 1.0)
    view.on_agents([presence("a", workers=cores, cores=5, functions=infos, memory_kills=2)], 2.0)
    document = view.advance(2.0)
    slots = {name: chr(0x100 + row["slot"]) for name, row in document["functions"].items()}
    assert document["cells"]["a"] == f"{slots['f']}{slots['g']}.~!"
    assert document["hosts"]["a"]["state"] == "up" and document["hosts"]["a"]["kills"] == 2


def test_versions_of_a_function_are_counted_by_host_also_without_an_offer() -> None:
    view = PoolView("p")
    view.on_agents(
        [
            presence("a", version="1", rank=1),
            presence("b", version="1", rank=1),
            presence("c", version="2", rank=2, offer="o2"),
            presence("d", version="2", rank=2, offer=""),
            presence("e", version="2", rank=2, offer="", functions=[]),
        ],
        1.0,
    )
    row = view.advance(1.0)["functions"]["f"]
    assert row["hosts"] == 4 and row["versions"] == [["1", 2, 1], ["2", 2, 2]]


def test_an_agent_that_falls_silent_is_shown_as_gone_and_one_that_left_is_not() -> None:
    view = PoolView("p")
    view.on_agents([presence("a"), presence("b", draining=True)], 100.0)
    view.on_agents([], 108.0)
    document = view.advance(108.0)
    assert {a: row["state"] for a, row in document["hosts"].items()} == {"a": "gone"}
    assert document["hosts"]["a"]["seen"] == 101.0 and document["cells"]["a"] == "??"
    assert document["totals"]["cores"] == 0 and view.agents == []
    view.on_agents([presence("a")], 110.0)
    assert view.advance(110.0)["hosts"]["a"]["state"] == "up"
    view.on_agents([], 111.0)
    assert view.advance(800.0)["hosts"] == {"a": None}


def test_while_the_broker_is_away_the_last_that_was_known_stays() -> None:
    view = PoolView("p")
    view.on_activity(activity(maps=[map_of()]), 10.0)
    view.on_connection(True, 10.0)
    view.advance(10.0)
    view.on_connection(False, 11.0)
    view.on_connection(False, 60.0)
    document = view.snapshot() | view.advance(60.0)
    assert document["away"] == 11.0 and "m1" in document["maps"]
    view.on_connection(True, 61.0)
    assert view.advance(61.0)["maps"] == {"m1": None}, "nobody announced it since"


def test_causes_of_several_callers_are_added_up() -> None:
    view = PoolView("p")
    view.on_activity(activity("d1", failures=[failure(first=50.0, hosts=["a"])]), 100.0)
    view.on_activity(activity("d2", failures=[failure(first=10.0, hosts=["b"])]), 100.0)
    [row] = view.advance(100.0)["failures"].values()
    assert (row["count"], row["first"], row["last"]) == (4, 50.0, 95.0)
    assert row["counts"][-1] == 4 and row["hosts"] == ["a", "b"]


def test_percentiles_come_from_merged_histograms() -> None:
    view = PoolView("p")
    view.on_activity(activity("d1", express={30: 98}), 1.0)
    view.on_activity(activity("d2", express={50: 2}), 1.0)
    totals = view.advance(1.0)["totals"]
    assert 0.001 <= totals["p50"] <= 0.00126 and 0.1 <= totals["p99"] <= 0.126
    assert view.snapshot()["history"] == [[0.0, totals["p50"], totals["p99"], 0]]


def test_a_function_keeps_its_slot_for_as_long_as_it_is_there() -> None:
    view = PoolView("p")

    def slots(*names: str) -> dict[str, int]:
        view.on_agents([presence("a", functions=[FunctionInfo(n) for n in names])], 1.0)
        view.advance(1.0)
        return {name: row["slot"] for name, row in view.snapshot()["functions"].items()}

    assert slots("b", "constructor", "__proto__") == {"__proto__": 0, "b": 1, "constructor": 2}
    assert slots("a", "constructor") == {"constructor": 2, "a": 0}


def test_the_busiest_functions_get_the_first_slots() -> None:
    view = PoolView("p")
    rows = [FunctionActivity(n, k, 1.0, 1.0, 0, {50: k}, 1.0, 1.0) for k, n in enumerate("abc")]
    view.on_activity(activity(functions=rows), 1.0)
    functions = view.advance(1.0)["functions"]
    assert {name: row["slot"] for name, row in functions.items()} == {"c": 0, "b": 1, "a": 2}
    assert list(functions) == ["a", "b", "c"]


def test_the_limit_of_the_code_is_shown_beside_that_of_people() -> None:
    view = PoolView("p")
    view.on_agents([presence("a", functions=[FunctionInfo("f", max_parallel=4)])], 1.0)
    for control, limit in ((FunctionControl(), 4), (FunctionControl(max_parallel=2), 2)):
        view.control = PoolControl(functions={"f": control})
        view.advance(1.0)
        row = view.snapshot()["functions"]["f"]
        assert (row["limit"], row["declared"]) == (limit, 4)


def test_what_is_paused_or_limited_is_shown_also_of_functions_that_nobody_has() -> None:
    view = PoolView("p")
    view.control = PoolControl(True, {"gone": FunctionControl(True, 2)})
    document = apply({}, view.advance(1.0))
    assert document["paused"] is True
    row = document["functions"]["gone"]
    assert (row["paused"], row["limit"], row["hosts"]) == (True, 2, 0)
    view.control = PoolControl()
    assert apply(document, view.advance(2.0))["functions"] == {}


def test_fair_shares_are_by_weight_over_the_whole_pool() -> None:
    view = PoolView("p")
    view.on_agents([presence("a", cores=12)], 1.0)
    view.on_activity(activity("d1", maps=[map_of("m1", weight=2.0)]), 1.0)
    view.on_activity(activity("d2", maps=[map_of("m2"), map_of("m3", state="paused")]), 1.0)
    maps = view.advance(1.0)["maps"]
    assert [maps[id]["fair"] for id in ("m1", "m2", "m3")] == [8.0, 4.0, None]


def big_pool() -> tuple[list[Presence], list[Activity]]:
    """A thousand hosts of 64 cores, fifty functions, ten callers with forty maps each."""
    rnd = random.Random(3)
    infos = [FunctionInfo(f"function_{n}", doc="One line about it.") for n in range(50)]
    agents = [
        presence(
            f"agent-{n:04}", host=f"r{n // 40:02}-n{n % 40:02}", cores=64, functions=infos,
            packages={"jetmap": "0.9.2"}, python="3.13.1", memory_limit=256 << 30,
            workers=[CoreStatus(c, c, "busy", f"function_{rnd.randrange(9)}") for c in range(64)],
        )
        for n in range(1000)
    ]  # fmt: skip
    callers = [
        activity(f"d{d}", maps=[map_of(f"m{d}-{m}", total=10_000_000) for m in range(40)])
        for d in range(10)
    ]
    return agents, callers


def test_the_first_snapshot_of_a_thousand_hosts_is_small() -> None:
    agents, callers = big_pool()
    view = PoolView("p")
    view.on_agents(agents, 1.0)
    for caller in callers:
        view.on_activity(caller, 1.0)
    view.advance(1.0)
    whole = len(msgspec.json.encode(view.snapshot()))
    assert whole <= 2_000_000, whole
    assert len(view.snapshot()["cells"]) == 1000 and len(view.snapshot()["maps"]) == 400
    changed = [msgspec.structs.replace(a, busy=1) for a in agents]
    view.on_agents(changed, 2.0)
    assert len(msgspec.json.encode(view.advance(2.0))) < 20_000, "nothing that people see changed"
