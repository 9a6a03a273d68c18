"""Log lines: harmless text, one record a line, and limits."""

from __future__ import annotations

import json
import logging

import pytest

from jetmap.logs import Flood, Formatter, JsonFormatter, Limited, harmless


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain ü", "plain ü"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\r\nb\tc", r"a\x0d\nb\tc"),
        ("\u202eevil", r"\u202eevil"),
        ("\udcff", r"\udcff"),
    ],
)
def test_control_characters_are_escaped(text: str, written: str) -> None:
    assert harmless(text).replace(r"\r", r"\x0d") == written


def test_lines_may_stay() -> None:
    assert harmless("a\nb", lines=True) == "a\nb"


def test_further_lines_of_a_record_are_indented() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 1, "a\n%s", ("b\x1b",), None)
    assert Formatter("%(levelname)s %(message)s").format(record) == "INFO a\n    b\\x1b"


def test_no_traceback_passes_for_a_record() -> None:
    try:
        raise ValueError("\x1b[31m\r\n12:00 INFO fake")
    except ValueError as error:
        exc_info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("n", logging.ERROR, "", 1, "failed", (), exc_info)
    text = Formatter("%(levelname)s %(message)s").format(record)
    assert "\x1b" not in text and "\r" not in text
    assert all(line.startswith("    ") for line in text.split("\n")[1:])


def test_a_flood_is_limited_and_counted() -> None:
    flood = Flood(rate=2, burst=3)
    assert [flood.lets_through(0) for _ in range(5)] == [True, True, True, False, False]
    assert flood.lets_through(0.5)
    assert not flood.lets_through(0.5)
    assert (flood.reset(), flood.left_out) == (3, 0)
    # A long silence allows no more than a burst.
    assert [flood.lets_through(1000) for _ in range(4)] == [True, True, True, False]


def test_the_next_record_reports_those_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    limited = Limited(
        logging.getLogger("limited"), "crashes", rate=1, burst=1, clock=lambda: now[0]
    )
    for number in range(3):
        limited.log(logging.WARNING, "crash %d", number)
    assert limited.has_left_out
    now[0] = 5.0
    limited.log(logging.WARNING, "crash %d", 3)
    assert [record.getMessage() for record in caplog.records] == [
        "crash 0",
        "2 more crashes are not shown here",
        "crash 3",
    ]


def test_a_level_that_is_off_costs_nothing() -> None:
    limited = Limited(logging.getLogger("limited"), "requests", rate=1, burst=1)
    assert not limited.passes(logging.DEBUG)
    assert limited.passes(logging.WARNING)


def test_a_record_is_one_line_of_json() -> None:
    try:
        raise ValueError("\x1b[31m\nü")
    except ValueError as error:
        exc_info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("n", logging.ERROR, "", 1, "a\n%s", ("b\x1b",), exc_info)
    record.created = 1_800_000_000.5
    record.jetmap_map, record.jetmap_item, record.jetmap_trace = "m1", 0, ""
    line = JsonFormatter().format(record)
    assert line.isascii() and line.isprintable()
    found = json.loads(line)
    assert "ValueError" in found.pop("exception")
    assert found == {
        "time": "2027-01-15T08:00:00.500+00:00",
        "level": "ERROR",
        "logger": "n",
        "message": "a\nb\x1b",
        "map": "m1",
        "item": 0,
    }
