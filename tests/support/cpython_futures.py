"""Run CPython's own tests of process pools with ``jetmap.Executor`` in the pool's place.

The tests come from the interpreter that runs this: ``python -m cpython_futures [NAME…]``.
"""

from __future__ import annotations

import importlib
import sys
import unittest
from collections.abc import Iterator
from concurrent import futures
from typing import Any

from jetmap import Executor

PACKAGE = "test.test_concurrent_futures"
MODULES = (
    "test_as_completed",
    "test_deadlock",
    "test_init",
    "test_process_pool",
    "test_shutdown",
    "test_wait",
)


def spawn_tests() -> Iterator[unittest.TestCase]:
    """Yield the tests of pools that spawn, which now use an ``Executor``."""
    support: Any = importlib.import_module("test.support")
    support.verbose = 0
    util = importlib.import_module(f"{PACKAGE}.util")
    util.ProcessPoolSpawnMixin.executor_type = Executor
    for name in MODULES:
        module: Any = importlib.import_module(f"{PACKAGE}.{name}")
        if name == "test_shutdown":
            module.assert_python_ok = _in_a_script(module.assert_python_ok)
        for test in _flat(unittest.defaultTestLoader.loadTestsFromModule(module)):
            if "Spawn" in type(test).__name__ or test.id().endswith(".test_spawn"):
                yield test


def _flat(suite: Any) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def _in_a_script(real: Any) -> Any:
    """Have the scripts that tests run import ``Executor`` from here, too."""

    def run(*arguments: str) -> Any:
        scripts = [
            text.replace("from concurrent.futures import Executor", "from jetmap import Executor")
            for text in arguments
        ]
        return real(*scripts)

    return run


def main(names: list[str]) -> None:
    futures.ProcessPoolExecutor = Executor  # type: ignore[misc, assignment]
    tests = [test for test in spawn_tests() if not names or any(n in test.id() for n in names)]
    result = unittest.TestResult()
    for test in tests:
        before = len(result.failures) + len(result.errors)
        skipped = len(result.skipped)
        test(result)
        failed = len(result.failures) + len(result.errors) > before
        word = "FAILED" if failed else "skipped" if len(result.skipped) > skipped else "passed"
        print(f"{word} {test.id().removeprefix(PACKAGE + '.')}", flush=True)
    if names:
        for _, text in (*result.failures, *result.errors):
            print(text, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
