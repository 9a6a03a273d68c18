"""The list of the source that the workers of an `up` have loaded."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jetmap.agent.code import Code, CodeFile, read_code
from jetmap.wire.presence import FunctionInfo
from jetmap.wire.worker_start import Ready


def ready(**digests: str) -> Ready:
    functions = [FunctionInfo("f", module="tasks")]
    return Ready(functions, "source", list(digests), list(digests.values()))


def test_what_workers_agree_on_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "up.code"
    assert read_code(path) is None
    file = CodeFile(str(path))
    file.on_loaded(0, ready(a="1", b="1"))
    assert read_code(path) == Code({"f": "tasks"}, {"a": "1", "b": "1"})
    assert path.stat().st_mode & 0o077 == 0
    file.on_loaded(1, ready(a="1", b="2"))
    assert read_code(path) == Code({"f": "tasks"}, {"a": "1", "b": ""}), "they differ in b"
    file.on_loaded(0, ready(a="1", b="2"))
    assert read_code(path) == Code({"f": "tasks"}, {"a": "1", "b": "2"})
    assert [each.name for each in tmp_path.iterdir()] == ["up.code"]
    path.write_bytes(b"{")
    assert read_code(path) is None


def test_without_a_path_nothing_is_written() -> None:
    CodeFile(None).on_loaded(0, ready(a="1"))


def test_a_directory_that_is_gone_costs_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        CodeFile(str(tmp_path / "gone" / "up.code")).on_loaded(0, ready(a="1"))
    assert "cannot be written" in caplog.text
