"""``pytest --at-once``: the reports of several processes, and the death of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processes import HERE
from waiting import PATIENCE

GOOD = """
def test_good(tmp_path, request):
    assert tmp_path.is_dir() and not request.config.pluginmanager.hasplugin("at-once")
"""
BAD = """
import os

def test_bad():
    print("what it printed")
    assert [1, 2] == [1, 3]
"""
DEADLY = """
import os

def test_deadly():
    os._exit(0)

def test_never_reached():
    pass
"""


def test_reports_come_from_all_processes_and_a_death_is_a_failure(tmp_path: Path) -> None:
    for name, text in (("good", GOOD), ("bad", BAD), ("deadly", DEADLY), ("last", GOOD)):
        (tmp_path / f"test_{name}.py").write_text(text)
    options = ("-p", "no:schemathesis", "-p", "no:asyncio", "-p", "no:faker", "-p", "no:jetmap")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "at_once", *options, "--at-once", "2", "-q"],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "2 failed, 2 passed" in done.stdout and "what it printed" in done.stdout
    assert "the process died in test_deadly.py::test_deadly" in done.stdout
