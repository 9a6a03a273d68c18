"""Logs of functions that configure none."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.trace import SpanContext

from jetmap.tracing import computing, traceparent_of
from jetmap.worker.lines import RECORD, MarkedLines, OutputBudget, renderer
from jetmap.worker.logs import mark_records, show_logs


@contextmanager
def plain_root() -> Iterator[logging.Logger]:
    """The root logger without handlers, as in a worker."""
    found, last, level = logging.getLogger(), logging.lastResort, logging.getLogger().level
    handlers, found.handlers = found.handlers, []
    yield found
    for handler in found.handlers:
        handler.close()
    found.handlers, logging.lastResort = handlers, last
    found.setLevel(level)


def test_records_from_the_level_on_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_root():
        show_logs("info")
        logging.getLogger("mine").info("shown %d", 1)
        logging.getLogger("mine").debug("not shown")
    assert capsys.readouterr().err == "INFO mine: shown 1\n"


def test_a_functions_own_configuration_takes_effect(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_root():
        show_logs("warning")
        logging.basicConfig(format="own %(message)s", level=logging.DEBUG)
        logging.debug("debugging")
    assert capsys.readouterr().err == "own debugging\n"


def test_a_record_that_cannot_be_formatted_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_root():
        show_logs("info")
        logging.getLogger("mine").info("%d", "no number")
    assert "not all arguments" in (said := capsys.readouterr().err) or "TypeError" in said


def test_records_carry_map_item_and_trace(capsys: pytest.CaptureFixture[str]) -> None:
    factory, item = logging.getLogRecordFactory(), None
    try:
        with plain_root():
            mark_records(lambda: "m1", lambda: item)
            show_logs("info", "json")
            logging.getLogger("mine").warning("outside")
            item = 0
            parent = traceparent_of(SpanContext(10, 11, True), sampled=False)
            with computing(parent, "f", "m1", 1, 1, 1):
                logging.getLogger("mine").warning("inside", extra={"item": "mine"})
    finally:
        logging.setLogRecordFactory(factory)
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert all(line.startswith(RECORD) for line in lines)
    outside, inside = (json.loads(line.removeprefix(RECORD)) for line in lines)
    assert "map" not in outside and outside["message"] == "outside"
    assert (inside["map"], inside["item"], inside["trace"]) == ("m1", 0, f"{10:032x}")


def test_what_is_printed_is_json_too() -> None:
    def shown(data: bytes, mark: str) -> list[dict[str, Any]]:
        lines = MarkedLines(OutputBudget(1 << 20), render=renderer("json"))
        return [json.loads(line) for line in b"".join(lines.feed(data, mark, 0.0)).splitlines()]

    record = RECORD.encode() + b'{"message": "a record"}\n'
    forged = RECORD.encode() + b"no json\n"
    first, second, third = shown(b"\xffa\x1b\n" + record + forged, "[m1 item 3]")
    assert (first["map"], first["item"], first["logger"]) == ("m1", 3, "output")
    assert first["message"] == "\\xffa\\x1b" and third["message"] == "no json"
    assert second == {"message": "a record"}
    assert shown(b"x\n", "[worker 7]")[0]["worker"] == "worker 7"
