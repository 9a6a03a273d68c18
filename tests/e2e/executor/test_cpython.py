"""CPython's own tests of process pools pass with an ``Executor``, but for those that are listed.

They are taken from the interpreter that runs this, which must be 3.13 or newer and have its tests;
``make test-matrix`` tries such a one.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[2] / "support"

_INTERNALS = "reads attributes of the standard library's pool that have no meaning here"
_ON_DEMAND = "counts the processes that a pool starts on demand; these workers start together"
_GOES_ON = "expects that one dead worker breaks the pool; here it costs one call"
_QUEUE = "passes a multiprocessing queue in initargs, which is refused by name"
_LOCK = "passes a semaphore as an argument, which no pool can, and counts processes"

# Tests that fail, each with the reason.
KNOWN = {
    "test_deadlock.ProcessPoolSpawnExecutorDeadlockTest.test_shutdown_deadlock_pickle": _INTERNALS,
    "test_init.FailingInitializerResourcesTest.test_spawn": _QUEUE,
    "test_init.ProcessPoolSpawnFailingInitializerTest.test_initializer": _QUEUE,
    "test_process_pool.ProcessPoolSpawnProcessPoolExecutorTest."
    "test_idle_process_reuse_multiple": _ON_DEMAND,
    "test_process_pool.ProcessPoolSpawnProcessPoolExecutorTest."
    "test_idle_process_reuse_one": _ON_DEMAND,
    "test_process_pool.ProcessPoolSpawnProcessPoolExecutorTest.test_killed_child": _GOES_ON,
    "test_process_pool.ProcessPoolSpawnProcessPoolExecutorTest."
    "test_python_finalization_error": "counts on the threads that a pool starts",
    "test_process_pool.ProcessPoolSpawnProcessPoolExecutorTest.test_saturation": _LOCK,
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_del_shutdown": _INTERNALS,
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_processes_terminate": _LOCK,
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_shutdown_no_wait": _INTERNALS,
}
PASSING = 50  # Tests of the 63 in CPython 3.13, at least.


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cpythons_tests_of_spawned_pools(tmp_path: Path) -> None:
    if (
        sys.version_info < (3, 13)
        or importlib.util.find_spec("test.test_concurrent_futures") is None
    ):
        pytest.skip("this Python is older than 3.13, or was installed without its tests")
    done = subprocess.run(
        [sys.executable, "-m", "cpython_futures"],
        cwd=SUPPORT,
        capture_output=True,
        text=True,
        timeout=880,
    )
    results = [line.split(" ", 1) for line in done.stdout.splitlines()]
    failed = {name for word, name in results if word == "FAILED"}
    passed = {name for word, name in results if word == "passed"}
    assert failed <= set(KNOWN), done.stdout + done.stderr
    assert len(passed) >= PASSING, done.stdout + done.stderr
