"""A user's files do not stand in for modules that jetmap needs."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from jetmap import import_path
from jetmap.import_path import hiding_advice, hiding_files, module, note_hiding_files


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


def test_a_hidden_package_is_named_by_the_start_that_needs_it(tmp_path: Path) -> None:
    (tmp_path / "nats.py").write_text("")
    program = "from jetmap import Cluster\nwith Cluster(share=False).sync: pass\n"
    (tmp_path / "mine.py").write_text(program)
    found = subprocess.run([sys.executable, tmp_path / "mine.py"], capture_output=True, text=True)
    assert f"{tmp_path}/nats.py hides the package needed by jetmap of that name" in found.stderr


def test_only_files_that_were_imported_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "wave.py", "psutil.py", "nats"):
        (tmp_path / name).write_text("")
    error = ValueError()
    note_hiding_files(error, [str(tmp_path)])
    assert not hasattr(error, "__notes__")
    for name in ("json", "psutil"):
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)
    note_hiding_files(error, [str(tmp_path)])
    (note,) = error.__notes__
    assert "json.py hides the module of Python's" in note and "psutil.py hides the package" in note
    assert "wave" not in note
