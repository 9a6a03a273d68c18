"""Log lines: harmless text, one record a line, and limits."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jetmap import logs
from jetmap.logs import (
    Flood,
    Formatter,
    JsonFormatter,
    Limited,
    PromptHandler,
    harmless,
    harmless_json,
)
from waiting import wait_until


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


def test_json_without_control_characters_means_the_same() -> None:
    text = '{"\x9b\u202e":\r\n"ü\x7f\\u001b"}'
    escaped = harmless_json(text)
    assert escaped == '{"\\u009b\\u202e":\r\n"ü\\u007f\\u001b"}'
    assert json.loads(escaped) == json.loads(text)


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


# A slow reader


class Stuck:
    """A handler whose reader reads when it is asked to."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        os.set_blocking(reader, False)
        self.handler = PromptHandler(writer)
        self.handler.setFormatter(Formatter("%(levelname)s %(message)s"))
        self.sent = 0

    def log(self, message: str) -> None:
        self.handler.handle(logging.LogRecord("x", logging.INFO, "", 1, message, (), None))
        self.sent += 1

    def fill(self, beyond: int = 3) -> None:
        """Log numbered lines until some are left out."""
        while self.handler._left_out < beyond:
            self.log(f"{self.sent:0100}")

    def read(self) -> list[str]:
        """Read what is there, and what comes when there is room."""
        found = b""
        while True:
            try:
                found += os.read(self.reader, 1 << 20)
            except BlockingIOError:
                if not self.handler._kept:
                    return found.decode().splitlines()
                self.handler._on_later()

    def close(self) -> None:
        self.read()
        self.handler.close()
        os.close(self.reader)
        os.close(self.writer)


def pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)
    return reader, writer


def terminal() -> tuple[int, int]:
    reader, writer = os.openpty()
    tty.setraw(writer)
    return reader, writer


@pytest.fixture(params=[pipe, terminal], ids=["pipe", "terminal"])
def ends(request: pytest.FixtureRequest) -> Callable[[], tuple[int, int]]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["reopened", "polled"])
def stuck(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    ends: Callable[[], tuple[int, int]],
) -> Iterator[Stuck]:
    if request.param == "polled":
        monkeypatch.setattr(logs, "_reopened", lambda fd: None)
    monkeypatch.setattr(logs, "KEPT_BYTES", 4000)
    found = Stuck(*ends())
    yield found
    found.close()


def numbered(count: int) -> list[str]:
    return [f"INFO {number:0100}" for number in range(count)]


def accounted(lines: list[str]) -> int:
    """Number of the lines that are there or counted as left out, which must be in order."""
    found = 0
    for line in lines:
        if left_out := re.fullmatch(r"WARNING (\d+) more log lines are not shown here", line):
            found += int(left_out[1])
        else:
            assert line == f"INFO {found:0100}"
            found += 1
    return found


def test_lines_that_a_full_reader_does_not_take_are_counted(stuck: Stuck) -> None:
    """A terminal may take some more after it was full, when the kernel comes to move them on."""
    stuck.fill()
    lines = stuck.read()
    assert accounted(lines) == stuck.sent
    assert lines[-1] == "WARNING 3 more log lines are not shown here"
    stuck.log("next")
    assert stuck.read() == ["INFO next"]


def test_lines_for_a_reader_that_is_slow_for_a_moment_are_kept(stuck: Stuck) -> None:
    while len(stuck.handler._kept) < 2000:
        stuck.log(f"{stuck.sent:0100}")
    stuck.log("y" * 1000)
    assert stuck.read() == [*numbered(stuck.sent - 1), f"INFO {'y' * 1000}"]


def test_a_line_longer_than_all_that_is_kept_arrives_whole(stuck: Stuck) -> None:
    stuck.log("z" * 100_000)
    assert stuck.handler._kept
    assert stuck.read() == [f"INFO {'z' * 100_000}"]


def test_kept_lines_and_the_count_are_written_without_another_record() -> None:
    async def run() -> None:
        stuck = Stuck(*pipe())
        stuck.fill()
        found = b""

        def read() -> bool:
            nonlocal found
            try:
                found += os.read(stuck.reader, 1 << 20)
            except BlockingIOError:
                return False
            return found.endswith(b"3 more log lines are not shown here\n")

        await wait_until(read, "the count comes")
        assert found.count(b"\n") == stuck.sent - 3 + 1
        stuck.close()

    asyncio.run(run())


def test_at_its_end_it_waits_for_a_reader_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LAST_SECONDS", 60)
    reader, writer = pipe()
    handler = PromptHandler(writer)
    handler.handle(logging.LogRecord("x", logging.INFO, "", 1, "a" * 100_000, (), None))
    os.close(writer)
    closing = threading.Thread(target=handler.close)
    closing.start()
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"a" * 100_000 + b"\n"
    closing.join()


def test_at_its_end_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LAST_SECONDS", 0.01)
    stuck = Stuck(*pipe())
    stuck.fill()
    stuck.handler.close()
    assert not stuck.handler._kept
    os.close(stuck.reader)
    os.close(stuck.writer)


def test_other_programs_keep_a_blocking_descriptor(stuck: Stuck) -> None:
    assert os.get_blocking(stuck.writer)


def test_files_and_a_reader_that_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab") as file:
        handler = PromptHandler(file.fileno())
        handler.handle(logging.LogRecord("x", logging.INFO, "", 1, "b" * 10_000, (), None))
        handler.close()
    assert path.read_text() == "b" * 10_000 + "\n"
    stuck = Stuck(*pipe())
    os.close(stuck.reader)
    stuck.log("nobody")
    assert not stuck.handler._kept
    stuck.handler.close()
    os.close(stuck.writer)


def test_it_follows_its_descriptor_and_keeps_no_other_open(tmp_path: Path) -> None:
    reader, writer = pipe()
    handler = PromptHandler(writer, follows=True)
    with (tmp_path / "log").open("ab") as file:
        os.dup2(file.fileno(), writer)
    handler.handle(logging.LogRecord("x", logging.INFO, "", 1, "there", (), None))
    handler.close()
    with os.fdopen(reader, "rb") as before:
        assert before.read() == b""  # Its end: nobody has it open for writing.
    assert (tmp_path / "log").read_text() == "there\n"
    os.close(writer)
