"""``Executor`` does what a ``ProcessPoolExecutor`` does, and more of what one hopes for."""

from __future__ import annotations

import asyncio
import functools
import importlib
import math
import multiprocessing
import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import (
    CancelledError,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import calls
from jetmap import Executor, ExecutorBroken, Unpicklable, WorkerLost
from jetmap.executor import engine
from waiting import PATIENCE, wait_until_sync

WORKERS = 2
MANY = 300  # Calls of nothing after which the next chunks hold many.


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with Executor(WORKERS) as executor:
        yield executor


# Values


def test_what_goes_in_comes_out(pool: Executor) -> None:
    odd: list[object] = [None, True, 1 << 80, -(1 << 63), math.inf, "\ud800", b"x", (1, (2, [3]))]
    odd += [{1: {2, 3}}, frozenset("a"), calls.Point(1, (2,), {"3"}), calls.Point, range(3)]
    for found in (
        [pool.submit(calls.give, value).result() for value in odd],
        pool.map(calls.give, odd),
    ):
        for value, back in zip(odd, found, strict=True):
            assert back == value and type(back) is type(value)


def test_all_kinds_of_callables(pool: Executor) -> None:
    by = 10

    def closure(n: int) -> int:
        return n + by

    point = calls.Point(1)
    assert pool.submit(pow, 2, 8).result() == 256
    assert pool.submit(lambda n: n + 1, 1).result() == 2
    assert pool.submit(closure, 1).result() == 11
    assert pool.submit(functools.partial(calls.add, b=5), 1).result() == 6
    assert pool.submit(point.moved, 2).result() == calls.Point(3) and point.x == 1
    assert pool.submit(calls.Point.at, 4).result() == calls.Point(4)
    assert pool.submit(calls.Point, x=5).result() == calls.Point(5)
    adder = calls.Adder(1)
    assert [pool.submit(adder, 1).result() for _ in range(3)] == [3, 3, 3]
    assert list(pool.map(adder, [1, 1, 1])) == [3, 3, 3]
    assert list(pool.map(closure, range(3))) == [10, 11, 12]


def test_large_values_travel_and_stay_private(pool: Executor) -> None:
    array = np.ones(1_000_000)
    for _ in range(2):
        assert pool.submit(calls.total, array).result() == 1_000_000
    array[0] = 5
    assert pool.submit(calls.total, array).result() == 1_000_004
    found = pool.submit(calls.ones, 1_000_000).result()
    found[0] = 2
    assert found.sum() == 1_000_001 and array[0] == 5
    text = b"x" * 5_000_000
    assert pool.submit(calls.give, text).result() == text
    assert list(pool.map(calls.give, [text, b"y"])) == [text, b"y"]
    assert [a.sum() for a in pool.map(calls.ones, [1_000_000] * 3)] == [1_000_000] * 3


# Futures


def test_a_future_resolves_when_its_own_call_ends(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with Executor(1) as executor:
        wait([executor.submit(abs, n) for n in range(MANY)])
        before = [executor.submit(abs, -n) for n in range(20)]
        blocked = executor.submit(calls.wait_for_file, str(gate))
        after = executor.submit(abs, 1)
        assert [future.result(PATIENCE) for future in before] == list(range(20))
        assert not blocked.done() and not after.done()
        gate.touch()
        assert (blocked.result(PATIENCE), after.result(PATIENCE)) == (str(gate), 1)


def test_a_long_call_holds_up_no_call_that_another_worker_can_run(
    pool: Executor, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    wait([pool.submit(abs, n) for n in range(MANY)])
    blocked = pool.submit(calls.wait_for_file, str(gate))
    others = [pool.submit(abs, n) for n in range(MANY)]
    assert [future.result(PATIENCE) for future in others] == list(range(MANY))
    assert not blocked.done()
    gate.touch()
    assert blocked.result(PATIENCE) == str(gate)


def test_a_call_that_others_wait_for_begins_before_them(tmp_path: Path) -> None:
    """New executors, because the chunks that they send first were those that could be late."""

    def run(number: int) -> None:
        before, after = tmp_path / f"{number}-before", tmp_path / f"{number}-after"
        with Executor(WORKERS) as executor:
            assert executor.submit(abs, 1).result(PATIENCE) == 1  # Its cost is known from now on.
            first = executor.submit(calls.wait_for_file, str(before))
            others = [executor.submit(calls.wait_for_file, str(after)) for _ in range(WORKERS)]
            before.touch()
            assert first.result(PATIENCE) == str(before)
            after.touch()
            assert [call.result(PATIENCE) for call in others] == [str(after)] * len(others)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(run, range(12)))


def test_calls_of_a_new_function_wait_one_by_one(tmp_path: Path) -> None:
    """However quick others were: each may wait for an earlier one, or be cancelled."""
    chain = [tmp_path / str(number) for number in range(20)]
    with Executor(WORKERS) as executor:
        wait([executor.submit(abs, n) for n in range(MANY)])
        links = [executor.submit(calls.link, *map(str, pair)) for pair in pairwise(chain)]
        chain[0].touch()
        assert [link.result(PATIENCE) for link in links] == list(map(str, chain[1:]))
        wait([executor.submit(abs, n) for n in range(MANY)])
        gate = tmp_path / "gate"
        blocked = [executor.submit(calls.wait_for_file, str(gate)) for _ in range(20)]
        wait_until_sync(lambda: blocked[0].running(), "the first runs")
        executor.shutdown(wait=False, cancel_futures=True)
        wait_until_sync(lambda: blocked[-1].cancelled(), "the last is cancelled")
        gate.touch()
    # Each worker may have one and the next one.
    assert sum(call.cancelled() for call in blocked) >= 20 - 2 * WORKERS
    for call in blocked:
        assert call.cancelled() or call.result(PATIENCE) == str(gate)


def test_more_workers_than_cores_run_at_the_same_time(tmp_path: Path) -> None:
    with Executor(6) as executor:
        parties = [executor.submit(calls.meet, str(tmp_path), n, 6) for n in range(6)]
        assert [future.result() for future in parties] == [6] * 6
        assert len({executor.submit(calls.pid) for _ in range(6)}) == 6
        assert len(executor._processes) == 6


def test_from_several_threads(pool: Executor) -> None:
    with ThreadPoolExecutor(8) as threads:
        sums = threads.map(
            lambda start: (
                sum(pool.map(calls.add, range(start, start + 50)))
                + pool.submit(calls.add, start).result()
            ),
            range(16),
        )
        assert list(sums) == [sum(range(s, s + 50)) + s for s in range(16)]


def test_in_an_event_loop(pool: Executor) -> None:
    async def use() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(pool, calls.add, n, 1) for n in range(20))
        )

    assert asyncio.run(use()) == list(range(1, 21))


def test_a_callback_may_submit(pool: Executor) -> None:
    found: queue.Queue[int] = queue.Queue()
    first = pool.submit(calls.add, 1, 1)
    first.add_done_callback(
        lambda f: pool.submit(calls.add, f.result(), 1).add_done_callback(
            lambda g: found.put(g.result())
        )
    )
    assert found.get(timeout=PATIENCE) == 3


def test_a_connection_is_the_callers(pool: Executor) -> None:
    reader, writer = multiprocessing.Pipe()
    with reader, writer:
        assert pool.submit(calls.send_over, writer, [1, "x"]).result(PATIENCE) is None
        assert reader.poll(20) and reader.recv() == [1, "x"]


def test_a_worker_uses_the_callers_resource_tracker(pool: Executor) -> None:
    assert pool.submit(calls.tracker).result(PATIENCE) == calls.tracker()


def test_an_authkey_travels_with_a_managers_proxies(pool: Executor) -> None:
    with multiprocessing.get_context("spawn").Manager() as manager:
        shared = manager.Queue()
        assert pool.submit(calls.put_in, shared, 7).result() == 7
        assert shared.get() == 7


# Map


def test_map_gives_values_in_order(pool: Executor) -> None:
    assert list(pool.map(calls.add, range(1000), range(2000))) == [2 * n for n in range(1000)]
    assert list(pool.map(calls.add, range(10), chunksize=3)) == list(range(10))
    assert list(pool.map(calls.add, [])) == []
    mixed = [1, 1 << 70, "x", 2.5, None, b"y", (1,)]
    assert list(pool.map(calls.give, mixed)) == mixed


def test_only_first_calls_of_a_map_leave_work_for_the_worker(pool: Executor) -> None:
    assert sum(pool.map(calls.leaves_work, range(MANY))) <= WORKERS


def test_map_raises_where_a_call_did(pool: Executor) -> None:
    values = pool.map(calls.fail_at, range(10))
    assert [next(values) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(values)
    assert list(values) == []
    with pytest.raises(Exception, match="not this one"):
        list(pool.map(calls.give, [1, calls.NoPickle(), 3]))
    with pytest.raises(WorkerLost):
        list(pool.map(calls.die, [1]))
    assert list(pool.map(calls.add, range(3))) == [0, 1, 2]


def test_map_with_a_buffer_reads_no_further(pool: Executor) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(1 << 60):
            read.append(n)
            yield n

    values = pool.map(calls.add, numbers(), buffersize=4)
    assert [next(values) for _ in range(10)] == list(range(10))
    assert len(read) <= 14
    for wrong, error in ((0, ValueError), ("4", TypeError)):
        with pytest.raises(error, match="buffersize"):
            pool.map(calls.add, [1], buffersize=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(calls.add, [1], chunksize=0)


def test_large_results_may_be_read_when_the_executor_has_ended() -> None:
    with Executor(1) as executor:
        values = executor.map(calls.filled, range(3))
        future = executor.submit(calls.filled, 7)
    assert [int(value[0]) for value in values] == [0, 1, 2]
    assert future.result()[0] == 7


# Errors


def test_an_exception_comes_with_its_traceback(pool: Executor) -> None:
    with pytest.raises(ValueError, match="no 3") as caught:
        pool.submit(calls.raise_value_error, 3).result()
    assert "# the line of the error" in str(caught.value.__cause__)
    assert "remote.py" not in str(caught.value.__cause__)
    with pytest.raises(SystemExit) as left:
        pool.submit(calls.leave).result()
    assert left.value.code == 4


def test_a_worker_that_dies_fails_its_own_call_only(pool: Executor) -> None:
    wait([pool.submit(abs, n) for n in range(MANY)])
    futures = [pool.submit(calls.add, n) for n in range(20)]
    lost = pool.submit(calls.killed)
    futures += [pool.submit(calls.add, n) for n in range(20)]
    with pytest.raises(BrokenProcessPool) as caught:
        lost.result(PATIENCE)
    assert isinstance(caught.value, WorkerLost) and caught.value.attempts == 1
    assert [future.result(PATIENCE) for future in futures] == [*range(20), *range(20)]


def test_of_tiny_calls_that_are_begun_together_a_slow_one_holds_up_no_other(
    pool: Executor, tmp_path: Path
) -> None:
    for at in (1500, 1511):
        meet = functools.partial(calls.wait_for_the_next, at, tmp_path / str(at))
        assert list(pool.map(meet, range(3000))) == list(range(3000))


def test_of_tiny_calls_that_are_begun_together_the_one_that_kills_its_worker_is_known(
    pool: Executor, tmp_path: Path
) -> None:
    """It is not called again to find out."""
    for last in (1500, 1501, 1510, 1530):
        found, f = [], functools.partial(calls.die_once_at, last, tmp_path / str(last))
        with pytest.raises(BrokenProcessPool) as caught:
            for value in pool.map(f, range(3000)):
                found.append(value)
        assert isinstance(caught.value, WorkerLost) and caught.value.index == last
        assert found == list(range(last))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda pool: pool.submit(calls.give, calls.NoPickle()), "not this one"),
        (lambda pool: pool.submit(calls.give, calls.NoUnpickle()), "no way in"),
        (lambda pool: pool.submit(calls.no_pickle), "not this one"),
        (lambda pool: pool.submit(calls.no_unpickle), "no way in"),
        (lambda pool: pool.submit(calls.raise_awkward), "1 and 2"),
        (lambda pool: pool.submit(calls.give, threading.Lock()), "lock"),
    ],
)
def test_what_cannot_be_pickled_fails_alone(pool: Executor, call: Any, error: str) -> None:
    failed, good = call(pool), pool.submit(calls.add, 1)
    with pytest.raises(Exception, match=error) as caught:
        failed.result(PATIENCE)
    if error in ("no way in", "1 and 2"):
        assert isinstance(caught.value, Unpicklable) and isinstance(caught.value, BrokenProcessPool)
    assert good.result(PATIENCE) == 1


# Workers


def test_an_initializer_runs_once_in_each_worker() -> None:
    with Executor(2, initializer=calls.set_state, initargs=(np.ones(1_000_000),)) as executor:
        assert [f.result().sum() for f in [executor.submit(calls.get_state)] * 4] == [1e6] * 4


def test_a_failing_initializer_breaks_the_executor() -> None:
    executor = Executor(1, initializer=calls.fail_to_start)
    first, second = executor.submit(calls.add, 1), executor.submit(calls.add, 2)
    for future in (first, second):
        with pytest.raises(ExecutorBroken, match="the initializer raised in a worker: LookupError"):
            future.result(PATIENCE)
    executor.shutdown()
    with pytest.raises(BrokenProcessPool, match="no model"):
        executor.submit(calls.add, 1)


def test_a_worker_is_replaced_after_its_calls() -> None:
    with Executor(1, max_tasks_per_child=2) as executor:
        pids = [future.result() for future in [executor.submit(calls.pid) for _ in range(6)]]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]
        assert len(set(executor.map(calls.pid, range(4)))) == 2


def test_shutdown_finishes_or_cancels(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    executor = Executor(1)
    begun = executor.submit(calls.wait_for_file, str(gate))
    wait_until_sync(begun.running, "the call begins")
    waiting = [executor.submit(calls.wait_for_file, str(gate)) for _ in range(20)]
    assert waiting[-1].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(calls.add, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(calls.add, [1])
    gate.touch()
    assert begun.result(PATIENCE) == str(gate)
    executor.shutdown()
    assert sum(future.cancelled() for future in waiting) >= 10
    assert all(future.done() for future in waiting)


def test_a_map_goes_on_without_its_executor() -> None:
    values = Executor(1).map(calls.add, range(100))
    assert list(values) == list(range(100))


def test_workers_are_killed(tmp_path: Path) -> None:
    executor = Executor(1)
    (pid,) = executor._processes.keys() or {executor.submit(calls.pid).result()}
    running = executor.submit(calls.wait_for_file, str(tmp_path / "never"))
    wait_until_sync(running.running, "the call begins")
    waiting = [executor.submit(calls.add, 1) for _ in range(5)]
    executor.kill_workers()
    with pytest.raises(BrokenProcessPool):
        running.result(PATIENCE)
    for future in waiting:
        with pytest.raises((CancelledError, BrokenProcessPool)):
            future.result(PATIENCE)
    executor.shutdown()
    wait_until_sync(lambda: not psutil.pid_exists(pid), "the worker is gone")


def test_workers_are_terminated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine, handling a signal may take longer than half a second.
    monkeypatch.setattr(engine, "TERMINATE_SECONDS", PATIENCE)
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    executor = Executor(1)
    running = executor.submit(calls.on_sigterm, str(ready), str(ended))
    wait_until_sync(ready.exists, "the handler is set")
    executor.terminate_workers()
    with pytest.raises(BrokenProcessPool):
        running.result(PATIENCE)
    executor.shutdown()
    assert ended.exists()


# Refusals


def test_a_call_may_have_an_executor_of_its_own(pool: Executor) -> None:
    assert pool.submit(calls.call_in_a_call, 4).result() == 5


def test_a_worker_does_not_start_workers_by_importing(pool: Executor) -> None:
    assert importlib.import_module("eager_calls").result() == 3
    with pytest.raises(Unpicklable, match="a worker that imports this module would start workers"):
        pool.submit(importlib.import_module("eager_calls").result).result()


def test_a_child_that_leaves_its_call_sends_nothing_for_its_parent(pool: Executor) -> None:
    # A worker reports the first call of a function in another way than later ones.
    futures = [pool.submit(calls.fork_and_wait, n) for n in range(6)]
    assert [future.result(timeout=PATIENCE) for future in futures] == ["parent"] * 6
    assert list(pool.map(calls.fork_and_wait, range(6))) == ["parent"] * 6


def test_a_forked_child_is_refused(pool: Executor) -> None:
    pool.submit(calls.add, 1).result()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            pool.submit(calls.add, 1)
        except BaseException as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"before this process was forked" in os.read(reader, 1000)
    assert pool.submit(calls.add, 2).result() == 2


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (calls.raise_odd_name, ValueError, "bad name"),
        (calls.raise_a_number, Unpicklable, "it became 5"),
        (calls.raise_unpicklable, TypeError, "cannot be packed"),
    ],
)
def test_an_exception_that_is_hard_to_send_says_what_it_was(
    pool: Executor, call: Any, error: type[Exception], text: str
) -> None:
    raised = pool.submit(call).exception(PATIENCE)
    assert type(raised) is error and text in str(raised)
    assert call.__name__ in f"{raised} {raised.__cause__} {getattr(raised, '__notes__', '')}"
    assert pool.submit(abs, -1).result(PATIENCE) == 1


def test_an_initializer_that_fails_with_an_odd_name_breaks_the_executor() -> None:
    with Executor(1, initializer=calls.raise_odd_name) as executor:
        for _ in range(2):
            with pytest.raises(ExecutorBroken, match="bad name"):
                executor.submit(abs, 1).result(PATIENCE)
