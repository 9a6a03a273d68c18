"""``Executor`` in scripts: what is printed, ``__main__``, and the end of the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes import HERE, alive, nothing_left, run_python
from waiting import PATIENCE, wait_until_sync


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


def test_a_callback_that_ends_the_executors_thread_fails_all_other_calls(tmp_path: Path) -> None:
    """Those of ``submit`` and of ``map``, which would wait for ever."""
    with nothing_left():
        done = run_python(EXITING, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["ExecutorBroken"] * 4), done.stderr
    assert "internal error: an executor ends" in done.stderr


EXITING = """
import os, sys, time
from jetmap import Executor
from jetmap.errors import ExecutorBroken

def wait(gate):
    while not os.path.exists(gate):
        time.sleep(0.01)

executor = Executor(4)  # Calls that never end leave workers for the others.
executor.submit(wait, ".").result()
first = executor.submit(wait, "gate")
first.add_done_callback(lambda future: sys.exit(3))
others = [executor.submit(wait, "never") for _ in range(2)]
values = executor.map(time.sleep, [0.1] * 1000)
open("gate", "w").close()
next_call = lambda: executor.submit(wait, ".").result()
for result in [*(future.result for future in others), lambda: list(values), next_call]:
    try:
        result()
    except ExecutorBroken as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("reads", [False, True])
def test_calls_of_workers_that_cannot_start_are_reported_once(reads: bool, tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(NO_WORKERS + (READ if reads else ""), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "read\n" if reads else "")
    assert done.stderr.count("the workers cannot start: ") == (not reads)


NO_WORKERS = """
import sys
from jetmap import Executor
from jetmap.errors import ExecutorBroken

sys.executable = "/no/such/python"
future = Executor(1).submit(print, "never")
"""
READ = """
try:
    future.result()
except ExecutorBroken:
    print("read")
"""


@pytest.mark.slow
def test_a_script_waits_for_a_server_that_stands_still(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(STOPPED_SERVER, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "from a call\n"), done.stderr


STOPPED_SERVER = """
import threading
import psutil
from jetmap import Executor
from jetmap.client import session

join = session.join_keeper

async def join_and_stop(*arguments):
    membership = await join(*arguments)
    children = psutil.Process(membership.keeper_pid).children()
    (server,) = (child for child in children if child.name() == "nats-server")
    server.suspend()
    threading.Timer(8, server.resume).start()  # Longer than a server elsewhere has to answer.
    return membership

session.join_keeper = join_and_stop
Executor(1).submit(print, "from a call")
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    with nothing_left(patient=True):
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
    time.sleep(600)

Executor(1).submit(work).result()
"""


def test_many_large_values_take_few_descriptors(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(MANY_LARGE, cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "True True True\n")


MANY_LARGE = """
import resource
import numpy as np
from calls import filled, first_of
from jetmap import Executor

resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
arrays = [filled(n) for n in range(200)]
with Executor(2) as executor:
    futures = [executor.submit(first_of, array) for array in arrays]
    print([future.result() for future in futures] == [n % 100 for n in range(200)], end=" ")
    print(list(executor.map(first_of, arrays)) == [n % 100 for n in range(200)], end=" ")
    values = executor.map(filled, range(200))
    executor.shutdown()  # All results are there before one is read.
    print([first_of(value) for value in values] == [n % 100 for n in range(200)])
"""


@pytest.mark.slow
def test_shared_memory_of_the_caller_outlives_the_workers(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(SHARED, cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[7, 7, 7, 7]\n")


SHARED = """
import time
from multiprocessing.shared_memory import SharedMemory
from calls import read_shared
from jetmap import Executor

found = []
memory = SharedMemory(create=True, size=100)
memory.buf[0] = 7
with Executor(1, max_tasks_per_child=1) as executor:
    for _ in range(4):
        found.append(executor.submit(read_shared, memory.name).result())
        time.sleep(0.2)  # A resource tracker of the worker's own would end now.
memory.close()
memory.unlink()
print(found)
"""


@pytest.mark.slow
def test_warnings_that_calls_log_appear(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(LOGGING, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "the disk is nearly full" in done.stderr and "no news" not in done.stderr


LOGGING = """
import logging
from jetmap import Executor

def work():
    logging.info("no news")
    logging.getLogger("mine").warning("the disk is nearly full")

with Executor(1) as executor:
    executor.submit(work).result()
"""


@pytest.mark.parametrize(
    "waits",
    [pytest.param("at the end of the block", marks=pytest.mark.slow), "for a result"],
)
def test_ctrl_c_ends_the_calls_that_wait(waits: str, tmp_path: Path) -> None:
    inside = waits == "at the end of the block"
    (tmp_path / "script.py").write_text(INTERRUPTED + (IN_BLOCK if inside else IN_RESULT))
    with nothing_left():
        caller = subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(HERE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert caller.stdout is not None
        assert caller.stdout.readline() == "running\n"
        caller.send_signal(signal.SIGINT)
        _, errors = caller.communicate(timeout=PATIENCE)  # The calls take 12,000 seconds.
    assert caller.returncode in (1, -signal.SIGINT) and "KeyboardInterrupt" in errors


INTERRUPTED = """
import time
from jetmap import Executor

def work():
    time.sleep(600)

executor = Executor(1)
for _ in range(20):
    future = executor.submit(work)
executor.submit(print, "never")
while not executor._engine._calls._out:
    time.sleep(0.01)
"""
IN_BLOCK = """
join = executor._engine.join

def joining():
    print("running", flush=True)
    join()

executor._engine.join = joining
with executor:
    pass
"""
IN_RESULT = """
print("running", flush=True)
future.result()
"""
