"""The examples of pages that begin with what readers have, and of traces, run as they stand."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"^\$ python (\w+\.py)\n((?:(?!\$|```).*\n)*)", re.MULTILINE)


# Examples that need a package that is not among those for development.
NEEDS = {"search.py": "sklearn", "graph.py": "dask"}
IMPORTED = {"tasks.py"}  # Files that the examples behind them import.


SLOW = pytest.mark.slow  # The others begin as the first does, and each takes a few seconds.


@pytest.mark.parametrize(
    "page",
    [
        "executor.md",
        pytest.param("joblib.md", marks=SLOW),
        pytest.param("model.md", marks=SLOW),
        pytest.param("put.md", marks=SLOW),
        pytest.param("traces.md", marks=SLOW),
    ],
)
def test_examples(page: str, tmp_path: Path) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, code in EXAMPLE.findall(text):
        (tmp_path / name).write_text(code, encoding="utf-8")
    runs = RUN.findall(text)
    examples = [name for name, _ in EXAMPLE.findall(text)]
    assert [name for name, _ in runs] == [name for name in examples if name not in IMPORTED]
    for name, expected in runs:
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            continue
        done = subprocess.run(
            [sys.executable, "-W", "error", name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0), name


CELL = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)

# Runs cells as notebooks do: in one event loop, in a __main__ without a file.
KERNEL = """
import ast, asyncio, inspect, json, sys
async def main(cells):
    for number, cell in enumerate(cells, 1):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        running = eval(compile(cell, f"<cell {number}>", "exec", flags=flags), globals())
        if inspect.isawaitable(running):
            await running
        print("--")
asyncio.run(main(json.load(sys.stdin)))
"""


def test_a_notebook(tmp_path: Path) -> None:
    cells = CELL.findall((DOCS / "notebook.md").read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KERNEL],
        input=json.dumps([code for code, _ in cells]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{printed}--\n" for _, printed in cells)
    assert re.fullmatch(r"collatz: 4,999 of 4,999 items done, [\d.]+ s\n", done.stderr)
