"""Failures of stdout. ``tests/e2e/cli/test_streams.py`` closes real streams."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from jetmap.cli import streams
from jetmap.cli.streams import OutputFailed, ReaderGone
from jetmap.errors import ConfigurationError


def test_a_failed_write_is_recognizable() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    said = "stdout cannot be written: No space left"
    with streams._Stdout(descriptor, "w") as stdout, pytest.raises(OutputFailed, match=said):
        stdout.write(b"x")


def test_a_reader_that_has_gone_is_recognizable() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with streams._Stdout(writer, "w") as stdout, pytest.raises(ReaderGone):
        stdout.write(b"x")


def test_a_descriptor_that_another_program_made_non_blocking_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = bytes(1 << 20)
    found: list[bytes] = []

    def read() -> None:
        while block := os.read(reader, 1 << 16):
            found.append(block)

    thread = threading.Thread(target=read)
    with io.BufferedWriter(streams._Stdout(writer, "w")) as stdout:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, data)
        thread.start()
        stdout.write(data)
        stdout.flush()
    thread.join()
    os.close(reader)
    assert sum(map(len, found)) >= len(data)


def test_what_stderr_does_not_take_is_dropped() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    for descriptor in (writer, full):
        with io.BufferedWriter(streams._Stderr(descriptor, "w")) as stderr:
            stderr.write(b"x" * 100_000)
            stderr.flush()


def test_text_that_the_encoding_does_not_have_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    streams.prepare()
    assert (sys.stdout.encoding, sys.stdout.errors) == ("ascii", "backslashreplace")
    assert (sys.stderr.encoding, sys.stderr.errors) == ("ascii", "backslashreplace")


@pytest.mark.parametrize(("given", "kept"), [("0", None), ("", None), ("100", "100")])
def test_no_terminal_is_0_columns_wide(
    given: str, kept: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setenv("COLUMNS", given)
    streams.prepare()
    assert os.environ.get("COLUMNS") == kept


def test_other_writes_pass(tmp_path: Path) -> None:
    with streams._Stdout(str(tmp_path / "out"), "w") as stdout:
        stdout.write(b"x")
    assert (tmp_path / "out").read_bytes() == b"x"


def test_a_closed_stdout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    streams.require_stdout("the values")
    monkeypatch.setattr(streams, "_closed", {1})
    with pytest.raises(ConfigurationError, match="stdout is closed: the values would be lost"):
        streams.require_stdout("the values")


def test_control_characters_do_not_act(capsys: pytest.CaptureFixture[str]) -> None:
    streams.echo("state     \x1b[2J\x9b\nfailed")
    assert capsys.readouterr().out == "state     \\x1b[2J\\x9b\nfailed\n"
    cell = streams.as_cell("[red]\u202e\n", "bold")
    assert (cell.plain, cell.style) == ("[red]\\u202e\\n", "bold")
