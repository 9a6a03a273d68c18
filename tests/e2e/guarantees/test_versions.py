"""Pickles are read only by the Python that wrote them: others are refused, or not asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import functions
from by_value_script import SCRIPT
from jetmap.dispatch import agent_tracker
from jetmap.wire import versions
from processes import HERE, run_python
from servers import Site
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

OURS = {"python": versions.python_version(), "packages": versions.package_versions()}


async def test_a_caller_of_another_python(
    place: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = await place.cluster()
    await place.agent(cluster, functions.__file__, "--trust-pickle", cores=1)
    (announced,) = cluster.workers
    assert {"python": announced.python, "packages": announced.packages} == OURS
    assert {"jetmap", "msgspec", "cloudpickle", "numpy"} <= announced.packages.keys()
    monkeypatch.setenv("JETMAP_NATS_URL", place.server.url)
    code = "from jetmap.wire import versions\nversions.python_version = lambda: '3.9.1'\n"
    code += "from jetmap.dispatch import agent_tracker\n"
    code += "agent_tracker.python_version = lambda: '3.9.1'\n"
    code += SCRIPT.replace("from __future__ import annotations", "")
    done = await asyncio.to_thread(run_python, code, cwd=tmp_path)
    assert "NotImportable: times of __main__ travels as a pickle" in done.stderr
    assert "this process has Python 3.9.1" in done.stderr
    assert f"has Python {OURS['python']} with cloudpickle" in done.stderr
    # What workers import themselves runs for any Python.
    monkeypatch.setattr(versions, "python_version", lambda: "3.9.1")
    monkeypatch.setattr(agent_tracker, "python_version", lambda: "3.9.1")
    assert await cluster.map(functions.is_prime, [7]) == [True]


def other_python() -> str:
    """Another minor version of Python with jetmap's dependencies, for those who have several.

    CI has one, so that this is skipped there; the decisions are tested above without it.
    """
    path = os.environ.get("JETMAP_TEST_OTHER_PYTHON")
    if not path:
        pytest.skip("JETMAP_TEST_OTHER_PYTHON does not name another Python with jetmap's packages")
    code = "import sys, msgspec, nats, cloudpickle, pydantic, psutil; print(sys.version)"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        pytest.skip(f"{path} lacks jetmap's packages: {done.stderr.splitlines()[-1]}")
    if done.stdout.split(".")[:2] == sys.version.split(".")[:2]:
        pytest.skip(f"{path} is the same Python as this one")
    return path


async def test_two_pythons_in_one_pool(
    place: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The other Python's script is refused while only this one's workers are there; beside a
    worker of its own it runs there, and never here."""
    python = other_python()
    cluster = await place.cluster()
    await place.agent(cluster, functions.__file__, "--trust-pickle")
    (tmp_path / "script.py").write_text(SCRIPT)
    roots = [str(HERE), str(HERE.parents[1] / "cluster"), str(HERE.parents[1] / "api")]
    environ = {
        **os.environ,
        "JETMAP_NATS_URL": place.server.url,
        "PYTHONPATH": os.pathsep.join(roots),
    }

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "script.py"],
            cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    done = await asyncio.to_thread(run)
    assert "NotImportable: times of __main__ travels as a pickle" in done.stderr
    worker = subprocess.Popen(  # noqa: ASYNC220
        [python, "-m", "jetmap.cli", "worker", functions.__file__, "--nats", place.server.url,
         "--trust-pickle", "--cores", "1"],
        env=environ,
    )  # fmt: skip
    try:
        await cluster._session.dispatcher.agents.wait_for(
            lambda: len(cluster.workers) == 2 and all(p.ready for p in cluster.workers), 40
        )
        assert len({agent.offer for agent in cluster.workers}) == 2
        done = await asyncio.to_thread(run)
        assert done.stderr == "" and "[[4, 7], [true, false]" in done.stdout
        monkeypatch.setenv("JETMAP_NATS_URL", place.server.url)
        done = await asyncio.to_thread(run_python, SCRIPT, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        worker.terminate()
        worker.wait(PATIENCE)
