"""`jetmap top`: one frame of a pool, within the terminal's lines."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from activities import activity, failure, map_of
from announcements import presence
from jetmap.cli.top import MOST_HOSTS, letters, number, progress, screen, seconds
from jetmap.monitoring.pool_view import PoolView
from jetmap.wire.controls import FunctionControl, PoolControl
from jetmap.wire.presence import CoreStatus, FunctionInfo


def frame(view: PoolView, width: int = 120, height: int = 40) -> list[str]:
    view.advance(10.0)
    console = Console(width=width, height=height)
    with console.capture() as capture:
        console.print(screen(view.snapshot(), width, height))
    return capture.get().splitlines()


def pool(maps: int = 2, hosts: int = 1, **fields: Any) -> PoolView:
    view = PoolView("p")
    cores = [CoreStatus(1, 0, "busy", "f"), CoreStatus(2, 1, "idle")]
    view.on_agents(
        [presence(f"a{n:02}", workers=cores, functions=[FunctionInfo("f")]) for n in range(hosts)],
        10.0,
    )
    rows = [map_of(f"map-{n:04}", **fields) for n in range(maps)]
    view.on_activity(activity(maps=rows, failures=[failure(message="no\nlines")]), 10.0)
    return view


def test_cores_maps_and_failures_are_shown() -> None:
    shown = "\n".join(frame(pool()))
    assert "pool p" in shown and "host-a00 F·" in shown and "F f" in shown
    assert "map-0001" in shown and "cores" in shown and "18 s" in shown
    assert "2 f E: no lines" in shown


def test_what_is_paused_or_limited_is_said_and_maps_are_chosen() -> None:
    view = pool()
    view.control = PoolControl(True, {"f": FunctionControl(True, 3)})
    shown = "\n".join(frame(view))
    assert "the pool is paused, f is paused, f has at most 3 cores" in shown
    console = Console(width=120)
    with console.capture() as capture:
        console.print(screen(view.snapshot(), 120, 40, lambda row: row["id"] == "map-0001"))
    assert "map-0001" in capture.get() and "map-0000" not in capture.get()


def test_control_characters_of_others_do_not_act() -> None:
    odd = "\x1b[2J\x9b\u202e"
    view = PoolView("p")
    functions = [FunctionInfo(f"f{odd}")]
    cores = [CoreStatus(1, 0, "busy", f"f{odd}")]
    view.on_agents([presence(f"h{odd}", workers=cores, functions=functions)], 10.0)
    row = map_of(f"m{odd}", function=f"f{odd}", waits=odd, labels={"a": odd})
    failures = [failure(function=odd, type=odd, message=odd)]
    view.on_activity(activity(maps=[row], failures=failures), 10.0)
    view.control = PoolControl(False, {f"f{odd}": FunctionControl(True, 3)})
    found = "\n".join(frame(view, width=300))
    assert not set("\x1b\x9b\u202e") & set(found)
    for start in ("f", "host-h", "a=", "2 "):
        assert f"{start}\\x1b[2J" in found


def test_a_frame_fits_the_terminal_and_says_what_it_leaves_out() -> None:
    lines = frame(pool(maps=300, hosts=50), width=80, height=24)
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    assert any("more hosts" in line for line in lines) and any(" more" in line for line in lines)
    assert sum("host-a" in line for line in lines) == 8, "a third of the lines"
    tall = frame(pool(maps=300, hosts=50), height=60)
    assert sum("host-a" in line for line in tall) == MOST_HOSTS
    assert sum("map-" in line for line in tall) > 30


@pytest.mark.parametrize("width", [60, 80, 99, 100, 145, 146, 200])
def test_a_row_has_what_the_terminal_has_room_for(width: int) -> None:
    view = pool(function="simulate_portfolio", waits="a limit of its function", labels={"a": "b"})
    lines = frame(view, width=width)
    assert all(len(line) <= width for line in lines)
    row = next(line for line in lines if "map-0000" in line)
    assert (
        "10 %" in row and ("a=b" in row) == (width >= 146) and ("running" in row) == (width >= 100)
    )


def test_the_oldest_wait_of_a_map_is_shown_where_there_is_room() -> None:
    view = pool(oldest=75.0)
    assert "1 min" in next(line for line in frame(view, width=120) if "map-0000" in line)
    assert not any("1 min" in line for line in frame(view, width=80))
    short = frame(pool(oldest=0.2), width=120)
    row = next(line for line in short if "map-0000" in line)
    assert row.split()[-2:] == ["-", "cores"]


@pytest.mark.parametrize("width", [50, 80, 160])
def test_the_pools_figures_are_never_cut(width: int) -> None:
    view = pool()
    busy = activity(
        sequence=2, express={5: 9}, waiting=4, waiting_seconds=9.0, refused={"full": 12}
    )
    view.on_activity(busy, 10.0)
    head = frame(view, width=width)
    head = head[: next(number for number, line in enumerate(head) if line.startswith("host-"))]
    assert all(len(line) <= width for line in head) and not any("…" in line for line in head)
    for figure in ("pool p", "0 of 2 cores busy", "p50", "p99", "12 refused in the last minute"):
        assert any(figure in line for line in head), figure
    assert (len(head) == 1) == (width == 160)


def test_a_job_is_told_from_a_map_where_there_is_room() -> None:
    view = pool(kind="job")
    assert " job " in next(line for line in frame(view, width=120) if "map-0000" in line)


def test_hosts_in_trouble_come_first() -> None:
    view = PoolView("p")
    view.on_agents([presence(f"a{n:02}", draining=n == 39) for n in range(40)], 10.0)
    lines = frame(view, height=24)
    assert "host-a39" in lines[1] and "draining" in lines[1] and "host-a00" in lines[2]


def test_an_empty_pool_says_what_to_start() -> None:
    shown = "\n".join(frame(PoolView("p")))
    assert "jetmap worker" in shown and "no map is open" in shown


def test_each_function_has_a_letter_of_its_own() -> None:
    names = {0: "invoice", 1: "is_prime", 2: "i", 3: "__"}
    assert letters(names) == {0: "I", 1: "S", 2: "I", 3: "#"}


def test_names_are_text_and_never_markup() -> None:
    shown = "\n".join(frame(pool(function="[bold]x[/]")))
    assert "[bold]x[/]" in shown


def test_a_broker_that_is_away_is_named() -> None:
    view = pool()
    view.on_connection(False, 10.0)
    assert "broker is away" in "\n".join(frame(view))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3.14159, "3.1"), (38_412.7, "38,413"), (1_234_567, "1.23 M"), (4e9, "4 G")],
)
def test_numbers_are_read_by_people(value: float, text: str) -> None:
    assert number(value) == text


def test_progress_is_drawn_unless_the_total_is_unknown() -> None:
    assert progress({"done": 4, "total": 10}).plain == "━" * 10 + "  40 %"
    assert progress({"done": 10, "total": 10}).plain.endswith(" 100 %")
    assert progress({"done": 4, "total": 10}, is_drawn=False).plain == " 40 %"
    assert progress({"done": 3, "total": None}).plain == "a stream"
    assert progress({"done": 0, "total": 0}).plain == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(5e-5, "50 µs"), (0.0271, "27.1 ms"), (18.0, "18 s"), (840.0, "14 min"), (7200.0, "2.0 h")],
)
def test_times_are_read_by_people(value: float, text: str) -> None:
    assert seconds(value) == text
