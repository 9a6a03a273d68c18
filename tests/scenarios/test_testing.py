"""The examples of docs/testing.md run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
EXAMPLE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

OPTIONS = ["-p", "no:cacheprovider", "-p", "no:schemathesis", "-W", "error"]
OPTIONS += ["--cov=tasks", "--cov-fail-under=100"]
OPTIONS += ["-o", "asyncio_default_fixture_loop_scope=function"]


def test_examples(tmp_path: Path) -> None:
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    for name, code in examples:
        (tmp_path / name).write_text(code, encoding="utf-8")
    tests = [name for name, _ in examples if name.startswith("test_")]
    assert len(tests) == 6
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    # Each line of the tasks, as the page says; one runs only in workers.
    (tmp_path / ".coveragerc").write_text("[run]\nparallel = true\npatch = subprocess\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *OPTIONS, *tests],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout
