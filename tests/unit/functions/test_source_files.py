"""The user's source files and their digests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jetmap.functions import source_files
from jetmap.functions.importing import import_tasks


def test_only_users_files_count(tmp_path: Path) -> None:
    assert source_files.is_users(str(tmp_path / "tasks.py"))
    assert not source_files.is_users(os.__file__)
    assert not source_files.is_users(source_files.__file__)
    assert not source_files.is_users("/venv/lib/python3.11/site-packages/x.py")
    assert not source_files.is_users("/usr/lib/python3/dist-packages/x.py")


def test_a_changed_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "_loaded", {})
    monkeypatch.setattr(source_files, "_modules", 0)
    file = tmp_path / "changed_source.py"
    file.write_text("x = 1\n")
    import_tasks(str(file))
    source_files.note_sources()
    assert str(file) not in source_files.changed_sources()
    file.write_text("x = 10\n")
    assert str(file) in source_files.changed_sources()
    file.write_text("x = 1\n")
    assert str(file) not in source_files.changed_sources()


def test_the_digest_of_a_file_follows_its_content(tmp_path: Path) -> None:
    file = tmp_path / "source.py"
    file.write_text("x = 1\n")
    first = source_files.file_digest(str(file))
    file.write_text("x = 12\n")
    assert source_files.file_digest(str(file)) != first
    assert source_files.file_digest(str(tmp_path / "none.py")) == ""
    assert source_files.file_digest(None) == ""
