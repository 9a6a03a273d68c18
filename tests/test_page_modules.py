"""The page's modules without a browser: their own tests, in node, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
MODULES = HERE.parent / "examples" / "page"
NODE = shutil.which("node")


@pytest.mark.parametrize("module", ["stream", "grid", "job"])
def test_module(tmp_path: Path, module: str) -> None:
    if NODE is None:
        pytest.skip("no node is installed: the page's modules are tried in the browser only")
    # Beside each other, in a place that says that they are modules.
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(MODULES / f"{module}.js", tmp_path)
    shutil.copy(HERE / "page" / f"{module}.mjs", tmp_path)
    done = subprocess.run(
        [NODE, "--test", f"{module}.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr
