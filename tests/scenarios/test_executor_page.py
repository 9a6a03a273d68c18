"""The examples of docs/executor.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "executor.md"
EXAMPLE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"^\$ python (\w+\.py)\n((?:(?!\$|```).*\n)*)", re.MULTILINE)


@pytest.mark.timeout(120)
def test_examples(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, code in EXAMPLE.findall(text):
        (tmp_path / name).write_text(code, encoding="utf-8")
    runs = RUN.findall(text)
    assert [name for name, _ in runs] == [name for name, _ in EXAMPLE.findall(text)]
    for name, expected in runs:
        done = subprocess.run(
            [sys.executable, "-W", "error", name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0), name
