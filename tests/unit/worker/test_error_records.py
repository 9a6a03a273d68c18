"""Records of failed items: bounded, in UTF-8, with a traceback of the user's own code."""

from __future__ import annotations

from typing import Any

from jetmap.wire.messages import encode
from jetmap.worker.error_records import MESSAGE_LIMIT, record_of, traceback_of, weight_of


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit


def test_a_record_names_the_error() -> None:
    record = record_of(7, "raised", ValueError("it cannot"), "the traceback")
    assert (record.index, record.kind, record.type) == (7, "raised", "ValueError")
    assert (record.message, record.traceback) == ("it cannot", "the traceback")
    assert weight_of(record) == len(encode(record))


def test_a_message_is_text_and_bounded() -> None:
    long = record_of(0, "raised", ValueError("é" * MESSAGE_LIMIT), None)
    assert len(long.message.encode()) <= MESSAGE_LIMIT + 3 and long.message.endswith("…")
    assert record_of(0, "raised", ValueError("a\udcff"), None).message == "a\\udcff"
    assert "raised RuntimeError" in record_of(0, "raised", Mute(), None).message
    assert "raised SystemExit" in record_of(0, "raised", Leaving(), None).message


def test_a_traceback_begins_behind_the_worker() -> None:
    def fail(depth: int) -> None:
        if not depth:
            raise ValueError("deep")
        fail(depth - 1)

    scope: dict[str, Any] = {"__name__": "jetmap.worker.compute"}
    exec("def compute(call): return call(2)", scope)
    try:
        scope["compute"](fail)
    except ValueError as error:
        assert error.__traceback__ is not None
        whole = traceback_of(error)  # It begins in this test, which is not of the worker.
        assert "test_a_traceback_begins" in whole and whole.endswith("ValueError: deep\n")
        shown = traceback_of(error.with_traceback(error.__traceback__.tb_next))
        assert "in compute" not in shown and "in fail" in shown
    try:
        exec("raise KeyError", scope)
    except KeyError as error:
        # All its frames are the worker's: better all of them than none.
        shown = traceback_of(error.with_traceback(error.__traceback__.tb_next))  # type: ignore[union-attr]
        assert "<module>" in shown


def test_of_a_long_traceback_the_end_counts() -> None:
    error = ValueError("x" * 2 * MESSAGE_LIMIT + "the end")
    shown = traceback_of(error)
    assert shown.startswith("…") and shown.endswith("the end\n")
    assert len(shown.encode()) <= MESSAGE_LIMIT + 3
