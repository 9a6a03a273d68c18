"""``Executor`` in scripts: what is printed, ``__main__``, and the end of the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from processes import HERE, alive, nothing_left, run_python
from waiting import wait_until_sync


def test_a_script_may_end_without_a_shutdown(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(UNFINISHED, cwd=tmp_path)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["from a call", "to a child"])
    assert done.stderr == "an error line\n"


UNFINISHED = """
import os, sys, time
from jetmap import Executor

def say(gate):
    while not os.path.exists(gate):
        time.sleep(0.01)
    print("from a call")
    print("an error line", file=sys.stderr)
    os.system("echo to a child")

executor = Executor(1)
executor.submit(say, "gate")
open("gate", "w").close()
"""


def test_what_main_defines_keeps_its_identity(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(MAIN, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["True True", "True", "True 2", "1 2", "script.py"]


MAIN = """
from jetmap import Executor
from enum import Enum
import traceback

class Color(Enum):
    RED = 1

class Point:
    def __init__(self, x):
        self.x = x
    def twice(self):
        return Point(2 * self.x)

def other():
    return limit

def chosen():
    return other

def fail():
    raise KeyError("x")

limit = 1

with Executor(1) as executor:
    found = executor.submit(Point(2).twice).result()
    print(type(found) is Point, isinstance(found, Point) and found.x == 4)
    print(executor.submit(lambda: Color.RED).result() is Color.RED)
    print(executor.submit(chosen).result() is other, 1 + executor.submit(other).result())
    first = executor.submit(other).result()
    limit = 2
    print(first, executor.submit(other).result())
    error = executor.submit(fail).exception()
    print("script.py" if "script.py" in str(error.__cause__) else error.__cause__)
"""


def test_what_an_initializer_loads_into_main_is_there_for_every_call(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(LOADED, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "[(5, 5, 6), (6, 5, 6)]",
        "(5, 5, 6) (5, 5, 6)",
        "(9, 9, 10)",
    ]


LOADED = """
import joblib
import jetmap.joblib
from jetmap import Executor

model = None
table = {}

def store(n):
    table["n"] = n

def load(n):
    global model, late
    model, late = n, n + 1
    store(n)

def use(x):
    return model + x, table["n"], late

def apply(f, x):
    return f(x)

with Executor(1, initializer=load, initargs=(5,)) as executor:
    print(list(executor.map(use, range(2))))
    print(executor.submit(apply, use, 0).result(), executor.submit(lambda x: use(x), 0).result())
with joblib.parallel_config("jetmap", n_jobs=2, initializer=load, initargs=(9,)):
    print(*joblib.Parallel()([joblib.delayed(use)(0)]))
"""


def test_pools_of_multiprocessing_inside_a_call_run_what_main_defines(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(NESTED, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        *("[0, 5, 10]", "[True, True, True] 2"),
        *("[0, 3, 6]", "[True, True, True] 2") * 2,
    ]


NESTED = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from jetmap import Executor

factor = 3

class Point:
    def __init__(self, x):
        self.x = x

def load(n):
    global factor
    factor = n

def scaled(n):
    return factor * n

def pools(method):
    context = multiprocessing.get_context(method)
    # A forked child has the globals that ``load`` sets. One of the others gets its own.
    n = 5 if method == "fork" else 3
    with ProcessPoolExecutor(1, context, initializer=load, initargs=(n,)) as pool:
        numbers = list(pool.map(scaled, range(3)))
    with context.Pool(1) as pool:
        points = pool.map(Point, range(3))
    return numbers, [type(point) is Point for point in points], points[-1]

with Executor(1) as executor:
    for method in "fork", "spawn", "forkserver":
        numbers, same, last = executor.submit(pools, method).result()
        print(numbers)
        print(same, last.x)
"""


def test_no_worker_outlives_a_killed_caller(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(KILLED)
    with nothing_left(timeout=12, patient=True):
        caller = subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(HERE)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert caller.stdout is not None
        worker = int(caller.stdout.readline())
        caller.send_signal(signal.SIGKILL)
        # Nobody holds its stdout open.
        assert caller.stdout.read() == ""
        caller.stdout.close()
        caller.wait()
        wait_until_sync(lambda: not alive(worker), "the worker is gone")


KILLED = """
import os, time
from jetmap import Executor

def work():
    print(os.getpid(), flush=True)
    time.sleep(60)

Executor(1).submit(work).result()
"""
