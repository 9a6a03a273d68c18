"""Type checkers accept the calls of typing/accepted.py and reject those of typing/rejected.py."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import skip_or_fail

TYPING = Path(__file__).parent / "typing"
ROOT = Path(__file__).resolve().parents[3]
Found = dict[str, set[int]]  # The lines with an error, by file.

pytestmark = pytest.mark.timeout(240)


def rejected(file: Path, checker: str) -> set[int]:
    lines = file.read_text(encoding="utf-8").splitlines()
    marks = ("# rejected", f"# rejected by {checker}")
    return {number for number, line in enumerate(lines, 1) if line.endswith(marks)}


def mypy() -> tuple[Found, str]:
    from mypy import api

    # As a user has it: an installed package, and a module of their own.
    options = ["--strict", "--no-error-summary", "--no-warn-unused-ignores", "--no-color-output"]
    cache = ROOT / ".mypy_cache" / "typing"
    said, trouble, _ = api.run(
        [*options, f"--cache-dir={cache}", "--config-file=", *map(str, TYPING.glob("*.py"))]
    )
    assert trouble == "", trouble
    found: Found = {}
    for line in said.splitlines():
        matched = re.match(r"(.+?\.py):(\d+): error: ", line)
        if matched:
            found.setdefault(Path(matched[1]).name, set()).add(int(matched[2]))
    return found, said


def pyright() -> tuple[Found, str]:
    if importlib.util.find_spec("pyright") is None:
        skip_or_fail("pyright is not installed")
    options = ["--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [sys.executable, "-m", "pyright", *options, *map(str, TYPING.glob("*.py"))],
        cwd=TYPING,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    try:
        said = json.loads(done.stdout)
    except ValueError:
        skip_or_fail(f"pyright does not run: {done.stderr[-300:]}")
    found: Found = {}
    for each in said["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            found.setdefault(Path(each["file"]).name, set()).add(line)
    assert said["summary"]["filesAnalyzed"] >= 2
    return found, done.stdout


def check(checker: Callable[[], tuple[Found, str]]) -> None:
    found, said = checker()
    for file in TYPING.glob("*.py"):
        assert found.pop(file.name, set()) == rejected(file, checker.__name__), said
    assert found == {}, said


def test_mypy() -> None:
    check(mypy)


@pytest.mark.slow
def test_pyright() -> None:
    check(pyright)
