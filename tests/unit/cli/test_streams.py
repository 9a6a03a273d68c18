"""Failures of stdout. ``tests/e2e/cli/test_streams.py`` closes real streams."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jetmap.cli import streams
from jetmap.cli.streams import OutputFailed
from jetmap.errors import ConfigurationError


def test_a_failed_write_is_recognizable() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    said = "stdout cannot be written: No space left"
    with streams._Stdout(descriptor, "w") as stdout, pytest.raises(OutputFailed, match=said):
        stdout.write(b"x")


def test_a_reader_that_has_gone_is_not_a_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with streams._Stdout(writer, "w") as stdout, pytest.raises(BrokenPipeError):
        stdout.write(b"x")


def test_other_writes_pass(tmp_path: Path) -> None:
    with streams._Stdout(str(tmp_path / "out"), "w") as stdout:
        stdout.write(b"x")
    assert (tmp_path / "out").read_bytes() == b"x"


def test_a_closed_stdout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    streams.require_stdout("the values")
    monkeypatch.setattr(streams, "_closed", {1})
    with pytest.raises(ConfigurationError, match="stdout is closed: the values would be lost"):
        streams.require_stdout("the values")
