"""The page's modules without a browser: their own tests, in node, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools import need_tool

HERE = Path(__file__).resolve().parent
MODULES = HERE.parents[1] / "examples" / "page"


@pytest.mark.parametrize("module", ["stream", "grid", "job"])
def test_module(tmp_path: Path, module: str) -> None:
    node = need_tool("node")
    # Beside each other, in a place that says that they are modules.
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(MODULES / f"{module}.js", tmp_path)
    shutil.copy(HERE / "page" / f"{module}.mjs", tmp_path)
    done = subprocess.run(
        [node, "--test", f"{module}.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr
