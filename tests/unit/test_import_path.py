"""A user's files do not stand in for modules that jetmap needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jetmap import import_path
from jetmap.import_path import hiding_advice, hiding_files, module


def test_a_module_is_run_past_the_users_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "types.py").write_text("mine = True\n")
    command = [*module("jetmap.cli"), "--version"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.startswith("jetmap "), found.stderr
    assert "-P" in command
    monkeypatch.chdir(Path(import_path.__file__).parent.parent)  # Perhaps nowhere else.
    assert "-P" not in module("jetmap.cli")


def test_files_that_hide_modules(tmp_path: Path) -> None:
    library = str(Path(os.__file__).parent)
    for name in ("queue.py", "types.txt", "mine.py", "code"):
        (tmp_path / name).write_text("")
    (tmp_path / "email").mkdir()
    assert hiding_files([str(tmp_path), "/nowhere", library]) == [str(tmp_path / "queue.py")]
    assert "queue.py hides the module of Python's" in hiding_advice([str(tmp_path)])
    (tmp_path / "email/__init__.py").write_text("")
    assert "queue.py hide the modules of" in hiding_advice([str(tmp_path), library])
    assert hiding_advice([library, str(tmp_path)]) == ""  # It comes later.


def test_a_hidden_module_is_named_by_the_import_that_needs_it(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("")
    (tmp_path / "mine.py").write_text("from jetmap import Cluster")
    found = subprocess.run([sys.executable, tmp_path / "mine.py"], capture_output=True, text=True)
    assert "jetmap cannot load Cluster (ImportError: cannot import name 'Empty'" in found.stderr
    assert f"{tmp_path}/queue.py hides the module of Python's" in found.stderr
