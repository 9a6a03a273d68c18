"""The examples of docs/testing.md run as they stand, and the fixtures under pytest-xdist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
EXAMPLE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

OPTIONS = ["-p", "no:cacheprovider", "-p", "no:schemathesis", "-W", "error"]
OPTIONS += ["-o", "asyncio_default_fixture_loop_scope=function"]
COVERAGE = ["--cov=tasks", "--cov-fail-under=100"]


def run(place: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *OPTIONS, *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_examples(tmp_path: Path) -> None:
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    for name, code in examples:
        (tmp_path / name).write_text(code, encoding="utf-8")
    tests = [name for name, _ in examples if name.startswith("test_")]
    assert len(tests) == 6
    # Each line of the tasks, as the page says; one runs only in workers.
    (tmp_path / ".coveragerc").write_text("[run]\nparallel = true\npatch = subprocess\n")
    assert "9 passed" in run(tmp_path, *COVERAGE, *tests)


SHARING = """
import pytest

@pytest.mark.parametrize("number", range(8))
def test_who_runs_it(number, jetmap_cluster_sync, worker_id):
    with open("keepers", "a") as file:
        print(worker_id, jetmap_cluster_sync._cluster.keeper_pid, file=file)

@pytest.mark.asyncio
async def test_in_a_loop(jetmap_cluster, jetmap_inline):
    assert jetmap_cluster.keeper_pid is not None
"""


@pytest.mark.slow
def test_processes_of_xdist_share_the_workers(tmp_path: Path) -> None:
    (tmp_path / "test_sharing.py").write_text(SHARING)
    assert "9 passed" in run(tmp_path, "-n", "2", "test_sharing.py")
    lines = [line.split() for line in (tmp_path / "keepers").read_text().splitlines()]
    assert {name for name, _ in lines} == {"gw0", "gw1"} and len({pid for _, pid in lines}) == 1
