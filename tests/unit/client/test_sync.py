"""The generated blocking client equals what its generator writes, and lacks nothing."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from typing import Any

import pytest

from jetmap import Cluster, Job, JobStream, Stream, SyncCluster, SyncJob, SyncJobStream, SyncStream

SCRIPT = Path(__file__).parents[3] / "scripts" / "unasync.py"

PAIRS = [(Cluster, SyncCluster), (Stream, SyncStream), (Job, SyncJob), (JobStream, SyncJobStream)]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize("module", ["cluster", "stream", "job"])
def test_committed_files_are_what_the_script_writes(script: dict[str, Any], module: str) -> None:
    committed = script["CLIENT"] / "_sync" / f"{module}.py"
    assert committed.read_text() == script["generate"](module)


@pytest.mark.parametrize(("original", "blocking"), PAIRS)
def test_each_public_member_has_a_blocking_form(original: type, blocking: type) -> None:
    members = {name for name in vars(original) if not name.startswith("_")} - {"aclose", "sync"}
    assert members <= set(dir(blocking))
    for name in members & set(vars(blocking)):
        member = vars(blocking)[name]
        assert not inspect.iscoroutinefunction(member)
        assert "async" not in (inspect.getdoc(member) or "")


@pytest.mark.parametrize(("original", "blocking"), PAIRS)
def test_parameters_are_the_same(original: type, blocking: type) -> None:
    for name, member in vars(blocking).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            parameters = inspect.signature(getattr(original, name)).parameters
            assert list(inspect.signature(member).parameters) == list(parameters)
