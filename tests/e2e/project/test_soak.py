"""The soak itself: its checker finds what is wrong, and a short run finds nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from chaos.checker import Checker
from chaos.faults import STALL, Fault
from chaos.functions import steady
from chaos.injector import Injector
from chaos.plans import MIXED_WAYS, SPACED_WAYS, plan, spaced_plan
from chaos.recovery import examine, hit_by, is_well
from chaos.runs import Notes
from chaos.stage import Stage

ROOT = Path(__file__).resolve().parents[3]
Lines = list[dict[str, Any]]

ITEMS = [[50, 10, "", 0], [51, 10, "raise", 0], [52, "soon", "", 0], [53, 10, "exit", 9]]


def good(number: int, size: int = 0) -> list[Any]:
    """The outcome of an item that is well, by the function itself."""
    value = steady((number, 0, "", size), log="/dev", map="-")
    return [*value[:2], len(value[2]), zlib.crc32(value[2].encode())]


def story(way: str = "stream") -> Lines:
    """A map as a caller writes it down when all is well."""
    outcomes = [
        [0, *good(50)],
        [1, "raised", "ValueError", "no 51"],
        [2, "invalid", "ValidationError", "Expected `int`, got `str`"],
        [3, "lost", "WorkerLost", "it exited with code 3"],
    ]
    begin = {"function": "fragile", "way": way, "timeout": None, "items": ITEMS}
    return [
        {"e": "begin", "m": "a.1", "t": 1.0, **begin},
        {"e": "out", "m": "a.1", "t": 2.0, "o": outcomes[:2]},
        {"e": "out", "m": "a.1", "t": 3.0, "o": outcomes[2:]},
        {"e": "end", "m": "a.1", "t": 4.0, "how": "done", "what": ""},
    ]


def judged(lines: Lines, gone: set[str] | None = None) -> Checker:
    checker = Checker()
    for line in lines:
        checker.feed(line)
    checker.close(gone or set(), 100.0)
    return checker


@pytest.fixture(autouse=True)
def no_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.functions._note", lambda *_: None)


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_the_checkers_values_are_the_functions(size: int) -> None:
    items = [[2**31 + 17, 10, "", size]]
    lines = story()
    lines[0]["items"] = items
    lines[1]["o"] = [[0, *good(2**31 + 17, size)]]
    del lines[2]
    assert judged(lines).violations == []


def test_nothing_is_found_where_all_is_well() -> None:
    checker = judged(story())
    assert checker.violations == [] and checker.outcomes == 4


def change(line: int, outcome: int, to: list[Any]) -> Callable[[Lines], None]:
    def changed(lines: Lines) -> None:
        lines[line]["o"][outcome] = to

    return changed


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda lines: lines[1]["o"].pop(), "lost"),
        (lambda lines: lines.pop(2), "lost"),
        (lambda lines: lines.pop(), "lost"),
        (lambda lines: lines[2]["o"].append([0, *good(50)]), "doubled"),
        (lambda lines: lines.insert(2, lines[1]), "doubled"),
        (lambda lines: lines[2]["o"].append([4, *good(54)]), "wrong"),
        (change(1, 0, [0, *good(51)]), "wrong"),
        (change(1, 0, [0, 50, 0, 0, 0]), "wrong"),
        (change(1, 0, [0, "raised", "ValueError", "no 50"]), "wrong"),
        (change(1, 0, [0, "timeout", "TimeoutError", "late"]), "wrong"),
        (change(1, 1, [1, *good(51)]), "wrong"),
        (change(1, 1, [1, "raised", "ValueError", "no 50"]), "wrong"),
        (change(2, 0, [2, "raised", "ValueError", "no 52"]), "wrong"),
        (change(2, 1, [3, *good(53)]), "wrong"),
        (lambda lines: lines[3].update(how="timeout"), "ended"),
        (lambda lines: lines[3].update(how="refused"), "ended"),
        (lambda lines: lines[3].update(how="left"), "ended"),
        (lambda lines: lines[3].update(how="failed"), "ended"),
        (lambda lines: lines.append(lines[3]), "ended"),
    ],
)
def test_what_is_wrong_is_found(spoil: Callable[[Lines], object], fault: str) -> None:
    lines = story()
    spoil(lines)
    assert fault in {violation.fault for violation in judged(lines).violations}


def test_order_is_looked_at_where_it_was_asked_for() -> None:
    lines = story("ordered")
    assert judged(lines).violations == []
    lines[1], lines[2] = lines[2], lines[1]
    assert judged(lines).violations != []


def test_a_killed_callers_maps_need_no_end() -> None:
    assert judged(story()[:2], gone={"a"}).violations == []


def test_a_killed_callers_maps_are_not_waited_for(tmp_path: Path) -> None:
    checker, notes = Checker(), Notes()
    for line in story()[:2]:
        checker.feed(line)
    notes.read(runs(tmp_path, 50, 51, 52, 53))
    fault = Fault("broker restarted, store kept", 2.5, ended=2.6)
    hit = hit_by(fault, checker, notes)
    assert [index for _, index, _ in hit] == [2, 3]
    assert not is_well(fault, checker, hit)
    assert is_well(fault, checker, hit, {"a"})


def runs(tmp_path: Path, *numbers: int) -> list[Path]:
    path = tmp_path / "7-8-1.runs"
    path.write_text("".join(f"a.1 {n} {2 + n / 100}\n" for n in numbers))
    return [path]


def test_an_item_that_never_ran_is_found(tmp_path: Path) -> None:
    checker = judged(story())
    assert examine(checker, [], runs(tmp_path, 50, 51, 53, 53)).executed == 4
    assert checker.violations == []
    examine(checker, [], runs(tmp_path, 51, 53))
    assert [violation.fault for violation in checker.violations] == ["wrong"]


def test_a_good_item_is_given_up_only_for_faults(tmp_path: Path) -> None:
    lines = story()
    change(1, 0, [0, "lost", "WorkerLost", "gone"])(lines)
    files = runs(tmp_path, 50, 50, 51, 53)
    killed = [Fault("worker killed", at, at, worker=8) for at in (2.0, 2.5)]
    checker = judged(lines)
    assert examine(checker, killed, files).given_up == 1 and checker.violations == []
    examine(checker, killed[:1], files)
    assert checker.violations != []


def test_a_good_item_is_given_up_only_for_faults_of_its_own_worker(tmp_path: Path) -> None:
    lines = story()
    change(1, 0, [0, "lost", "WorkerLost", "gone"])(lines)
    other = [Fault("worker killed", at, at, agent=7, worker=9) for at in (2.5, 2.6)]
    elsewhere = [Fault("agent killed", at, at, agent=6) for at in (2.5, 2.6)]
    caller = [Fault("caller frozen", at, at + 9, caller="a") for at in (2.5, 2.6)]
    for faults in (other, elsewhere, caller):
        checker = judged(lines)
        examine(checker, faults, runs(tmp_path, 50, 50, 51, 53))
        assert "wrong" in {violation.fault for violation in checker.violations}


def test_a_short_items_timeout_is_wrong_unless_the_machine_stood_still(tmp_path: Path) -> None:
    lines = story()
    lines[0]["function"] = "bounded"
    change(1, 0, [0, "timeout", "TimeoutError", "late"])(lines)
    still = Fault(STALL, 2.6, 4.0)
    for faults, wrong in ([], 1), ([Fault("agent frozen", 2.0, 9.0, agent=7)], 1), ([still], 0):
        checker = judged(lines)
        examine(checker, faults, runs(tmp_path, 50, 51, 53))
        assert checker.counts["wrong"] == wrong


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (None, ["again"]),
        (Fault("worker killed", 2.7, 2.7, agent=7, worker=8), []),
        (Fault("worker killed", 2.7, 2.7, agent=7, worker=9), ["again"]),
        (Fault("agent killed", 2.7, 2.7, agent=7), []),
        (Fault("agent killed", 2.7, 2.7, agent=6), ["again"]),
        (Fault("agent killed", 40.0, 41.0, agent=7), ["again"]),
        (Fault("caller frozen", 2.7, 4.0, caller="a"), []),
        (Fault("caller frozen", 2.7, 4.0, caller="b"), ["again"]),
        (Fault("broker frozen", 2.7, 4.0), []),
        (Fault("work stream full", 2.7, 4.0), ["again"]),
        (Fault(STALL, 2.7, 2.9), ["again"]),
    ],
)
def test_what_ran_again_has_a_cause(tmp_path: Path, fault: Fault | None, found: list[str]) -> None:
    (tmp_path / "7-8-1.runs").write_text("a.1 50 2.0\na.1 51 2.6\na.1 53 2.7\na.1 99 2.8\n")
    (tmp_path / "7-10-1.runs").write_text("a.1 50 3.0\n")
    lines = story()
    lines[0]["items"] = [*ITEMS, *[[n, 10, "", 0] for n in range(54, 100)]]
    checker = judged(lines)
    checker.violations.clear()
    examine(checker, [fault] if fault else [], sorted(tmp_path.glob("*.runs")))
    assert [violation.fault for violation in checker.violations] == found


@pytest.mark.parametrize(
    ("tour", "cuts", "found"), [(4, 0, []), (5, 0, ["again"]), (5, 1, ["again"]), (5, 2, [])]
)
def test_an_item_tours_one_agent_more_for_each_time_its_caller_is_cut_off(
    tmp_path: Path, tour: int, cuts: int, found: list[str]
) -> None:
    lines = story()
    lines[0]["items"] = [[50, 10, "agent", 0]]
    lines[1]["o"] = [[0, "lost", "WorkerLost", "3 agents vanished"]]
    lines[2]["t"] = lines[3]["t"] = 60.0
    lines[2]["o"] = []
    faults = [Fault("caller cut off", 5.0, 9.0, caller="a") for _ in range(cuts)]
    files = []
    for agent in range(tour):
        at = 2.5 + 10 * agent
        files.append(tmp_path / f"{agent}-{agent}-1.runs")
        files[-1].write_text(f"a.1 50 {at}\n")
        faults.append(Fault("agent killed by its item", at, at, agent=agent))
    checker = judged(lines)
    examine(checker, faults, files)
    assert [violation.fault for violation in checker.violations] == found


def test_a_crashing_item_explains_its_own_workers_repeats_only(tmp_path: Path) -> None:
    crashed, well = tmp_path / "7-8-1.runs", tmp_path / "7-9-1.runs"
    again = tmp_path / "7-10-1.runs"
    again.write_text("a.1 50 3.0\na.1 51 3.1\n")
    for there, found in (("a.1 50 2.0\na.1 53 2.1\n", []), ("a.1 53 2.0\n", ["again"])):
        crashed.write_text(there)
        well.write_text("a.1 51 2.0\n" if found == [] else "a.1 50 2.0\na.1 51 2.1\n")
        again.write_text("a.1 50 3.0\n")
        checker = judged(story())
        examine(checker, [], [crashed, well, again])
        assert [violation.fault for violation in checker.violations] == found


@pytest.mark.parametrize(("how", "found"), [("raise", []), ("", ["again"])])
def test_a_bad_item_explains_the_repeats_of_its_own_batch_only(
    tmp_path: Path, how: str, found: list[str]
) -> None:
    path = tmp_path / "7-8-1.runs"
    # Two calls of the batch, the second one with half of the items.
    path.write_text(f"a.1 50 2.0\nb.1 9 2.0 {how}\na.1 51 2.1\na.1 53 2.2\na.1 50 2.3\n")
    checker = judged(story())
    examine(checker, [], [path])
    assert [violation.fault for violation in checker.violations] == found


def slow_story(told: float) -> Lines:
    """A map whose first item takes until then."""
    lines = story()
    outcomes = lines[1]["o"] + lines[2]["o"]
    lines[1]["o"], lines[2] = outcomes[1:], lines[1] | {"t": told, "o": outcomes[:1]}
    lines[3]["t"] = told
    return lines


@pytest.mark.parametrize(
    ("told", "others", "checked", "late"),
    [
        (20.0, [], 1, 0),
        (23.5, [], 1, 1),
        (23.5, [Fault("agent killed", 12.0, 12.0, agent=6)], 0, 0),  # it is not alone
        (23.5, [Fault(STALL, 12.0, 14.0)], 1, 0),  # exactly that is taken off
        (23.5, [Fault(STALL, 12.0, 12.2)], 1, 1),
        (23.5, [Fault("worker killed", 90.0, 90.0, agent=6, worker=3)], 1, 1),
    ],
)
def test_a_limit_is_held(
    tmp_path: Path, told: float, others: list[Fault], checked: int, late: int
) -> None:
    (tmp_path / "7-8-1.runs").write_text("a.1 51 1.6\na.1 53 1.7\na.1 50 2.0\n")
    (tmp_path / "6-9-1.runs").write_text("a.1 50 12.5\n")
    checker = judged(slow_story(told))
    killed = Fault("agent killed", 2.2, 2.2, agent=7)
    findings = examine(checker, [killed, *others], sorted(tmp_path.glob("*.runs")))
    assert findings.checked["agent killed"] == checked
    assert [v.fault for v in checker.violations] == ["late"] * late


def test_an_item_whose_caller_left_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "7-8-1.runs"
    for tick, late in (4.9, 0), (7.0, 1):
        path.write_text(f"a.1 50 2.0\na.1 50 2.2 tick\na.1 50 {tick} tick\n")
        lines = [*story("close")[:2], {"e": "end", "m": "a.1", "t": 4.0, "how": "left", "what": ""}]
        checker = judged(lines)
        checker.violations.clear()
        findings = examine(checker, [], [path])
        assert findings.checked["caller left"] == 1
        assert [v.fault for v in checker.violations if "never ran" not in v.text] == ["late"] * late


def test_the_same_seed_gives_the_same_maps() -> None:
    for make, ways in (plan, MIXED_WAYS["http"]), (spaced_plan, SPACED_WAYS["library"]):
        one, two = (
            [make(f"a.{n}", ways, rng) for n in range(50)]
            for rng in (random.Random("7 a"), random.Random("7 a"))
        )
        assert one == two


@pytest.mark.parametrize("spaced", [False, True])
def test_the_same_seed_gives_the_same_faults(tmp_path: Path, spaced: bool) -> None:
    def faults(seed: int, place: str) -> list[Any]:
        stage = Stage(tmp_path / place, seed, 1, None, "1", spaced=spaced)
        deck = Injector(stage, seed, Checker(), lambda: None)._deck()
        return [(kind, draw.random(), gap) for kind, draw, gap in islice(deck, 40)]

    assert faults(7, "a") == faults(7, "b") != faults(8, "c")


def test_what_starts_long_after_its_caller_is_found(tmp_path: Path) -> None:
    path = tmp_path / "7-8-1.runs"
    path.write_text("a.1 50 2.0\na.1 51 18.0\n")
    killed = Fault("caller killed", 2.5, 2.5, caller="a")
    checker = judged(story()[:2], gone={"a"})
    examine(checker, [killed], [path])
    assert [violation.fault for violation in checker.violations] == ["late"]
    checker = judged(story()[:2], gone={"a"})
    examine(checker, [killed, Fault("agent killed", 3.0, 3.0, agent=7)], [path])
    assert checker.violations == []  # something else may be the reason


def test_a_connection_breaks_only_where_a_gateway_was_killed() -> None:
    lines = [*story("sse")[:2], {"e": "end", "m": "a.1", "t": 4.0, "how": "broken", "what": "EOF"}]
    killed = Fault("gateway killed", 3.9, 4.5, caller="gateway")
    for faults, found in ([killed], []), ([], ["ended"]):
        checker = judged(lines)
        examine(checker, faults, [])
        wrong = [v.fault for v in checker.violations if "never ran" not in v.text]
        assert wrong == found


@pytest.mark.parametrize("way", ["job", "job-http"])
def test_what_was_stored_and_runs_again_is_found(tmp_path: Path, way: str) -> None:
    path = tmp_path / "7-8-1.runs"
    path.write_text("a.1 50 1.5\na.1 51 1.5\na.1 53 1.5\na.1 50 20.0\n")
    frozen = Fault("agent frozen", 3.0, 9.0, agent=7)
    for faults, again in ([Fault("everything killed", 3.0, 9.0)], 1), ([frozen], 0):
        checker = judged(story(way))
        assert checker.violations == []
        assert examine(checker, faults, [path]).stored_again == again
        assert len(checker.violations) == again
    checker = judged(story())  # outcomes of a map are not stored
    assert examine(checker, [], [path]).stored_again == 0


def test_a_job_is_checked_twice(tmp_path: Path) -> None:
    """The caller and the auditor both read it, in order."""
    lines = story("job")
    lines.insert(1, {"e": "ticket", "m": "a.1", "t": 1.5, "job": "x"})
    again = [line | {"m": "audit.a.1"} for line in story("audit")]
    checker = judged(lines + again)
    examine(checker, [], runs(tmp_path, 50, 51, 53))
    assert checker.violations == [] and checker.tickets == 1
    assert {v.fault for v in judged(lines + again[:2]).violations} == {"lost"}
    again[1], again[2] = again[2], again[1]
    assert {v.fault for v in judged(lines + again).violations} == {"wrong"}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["1", "jobs", "spaced"])
def test_a_short_soak(stage: str) -> None:
    command = [sys.executable, "-m", "chaos", "--seconds", "20", "--stages", stage]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=390)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "lost 0, doubled 0, wrong 0" in ended.stdout
    assert "processes left: 0" in ended.stdout
