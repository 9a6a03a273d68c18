"""``cluster.sync``: other threads wait for the cluster's event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fake_jobs import FakeJobs, JobCluster, arrange
from jetmap import (
    Cluster,
    ClusterClosed,
    ItemRaised,
    JobStatus,
    Outcome,
    SyncJobStream,
    SyncStream,
    TooLarge,
    UnknownJob,
    task,
)
from jetmap.client.blocking import BlockingStream
from jetmap.client.state import FORKED
from jetmap.client.stream import OutcomeStream
from jetmap.settings import Settings
from waiting import PATIENCE

pytestmark = pytest.mark.anyio


@task(name="blocking.text")
def text(n: int) -> str:
    return str(n)


def test_an_interrupted_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the cluster starts: its tasks are cancelled before their loop is closed."""
    cluster = Cluster(inline=True)
    begun, ended = threading.Event(), threading.Event()

    async def start() -> None:
        async def another() -> None:
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                ended.set()

        monkeypatch.setattr(cluster, "task", asyncio.create_task(another()), raising=False)
        await asyncio.Event().wait()

    def interrupted(future: Any) -> None:
        begun.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "_start", start)
    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cluster.sync.__enter__()
    assert ended.is_set()


@pytest.fixture
def sync() -> Iterator[Any]:
    with Cluster(inline=True).sync as cluster:
        yield cluster


def test_a_start_without_a_block() -> None:
    """Threads start it, once, as in a server; it may be started again."""
    cluster = Cluster(inline=True).sync
    for _ in range(2):
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda n: cluster.start().map(text, [n]), range(8)))
        assert found == [[str(n)] for n in range(8)]
        assert [t.name for t in threading.enumerate()].count("jetmap") == 1
        cluster.close()
        cluster.close()
    with pytest.raises(ClusterClosed, match="not started"):
        cluster.map(text, [1])


def test_a_map_and_a_stream(sync: Any) -> None:
    assert sync.map(text, range(100)) == [str(n) for n in range(100)]
    with sync.stream(text, range(100), ordered=True) as stream:
        assert (len(stream), stream.done) == (100, 0)
        assert [outcome.value for outcome in stream] == [str(n) for n in range(100)]
        assert (stream.total, stream.done) == (100, 100)
    assert list(stream) == []
    assert [f.info.name for f in sync.functions].count("blocking.text") == 1
    assert sync.workers == []


def test_the_items_of_a_map_are_taken_in_the_callers_thread(sync: Any) -> None:
    threads = set()

    def items() -> Iterator[int]:
        threads.add(threading.current_thread())
        yield 1

    assert sync.map(text, items()) == ["1"]
    assert threads == {threading.current_thread()}


def test_no_more_is_taken_than_one_over_the_limit() -> None:
    endless = iter(range(10**9))
    with Cluster(inline=True, settings=Settings(max_list=3)).sync as sync:
        with pytest.raises(TooLarge):
            sync.map(text, endless)
        assert next(endless) == 4


def test_wrong_options_are_refused_before_any_item_is_taken(sync: Any) -> None:
    items = iter([1])
    for method in (sync.map, sync.stream, sync.submit):
        with pytest.raises(TypeError, match="no option 'chunksize'"):
            method(text, items, chunksize=3)
    assert next(items) == 1


def test_called_on_the_class() -> None:
    from jetmap import SyncCluster

    unbound: Any = SyncCluster.map
    with pytest.raises(TypeError, match=r"on the class; .* with Cluster\(\)\.sync as cluster"):
        unbound(text, [1])


def test_closing_twice_and_using_it_then() -> None:
    with Cluster(inline=True).sync as sync:
        stream = sync.stream(text, [1])
        with pytest.raises(ClusterClosed, match="started already"):
            sync.__enter__()
    sync.close()
    for use in (lambda: sync.map(text, [1]), lambda: sync.job("j"), lambda: next(stream)):
        with pytest.raises(ClusterClosed, match="not started"):
            use()


async def test_not_in_its_own_event_loop() -> None:
    async with Cluster(inline=True) as cluster:
        with pytest.raises(ClusterClosed, match="would block its own event loop"):
            cluster.sync.map(text, [1])
        assert await asyncio.to_thread(cluster.sync.map, text, [1]) == ["1"]


def test_an_interrupted_wait_cancels_the_coroutine(sync: Any) -> None:
    began, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    class Interrupted:
        """A future whose waiter is interrupted, as by Ctrl-C."""

        def __init__(self, future: Any) -> None:
            self.future = future
            self.cancel = future.cancel

        def result(self) -> None:
            began.wait()
            raise KeyboardInterrupt

    real = asyncio.run_coroutine_threadsafe
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(asyncio, "run_coroutine_threadsafe", lambda *args: Interrupted(real(*args)))
        sync._wait(forever())
    assert ended.wait(PATIENCE)


class Numbers(OutcomeStream[None, int]):
    """Outcomes in batches of three, up to ten; counts the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0
        self.closed = 0

    async def _read(self) -> None:
        start = 3 * self.batches
        if start >= 10:
            raise StopAsyncIteration
        self.batches += 1
        self.ready.extend(Outcome(n, None, n, None) for n in range(start, min(start + 3, 10)))

    async def aclose(self) -> None:
        self.closed += 1


def test_a_stream_waits_once_a_batch(sync: Any) -> None:
    waits = 0

    def wait(coroutine: Any) -> Any:
        nonlocal waits
        waits += 1
        return sync._wait(coroutine)

    numbers = Numbers()
    stream = BlockingStream(wait, numbers)
    assert [outcome.index for outcome in stream] == list(range(10))
    assert (numbers.batches, waits) == (4, 5)


@pytest.mark.parametrize("kind", [SyncStream, SyncJobStream])
def test_a_stream_of_a_parent_process_is_not_read_or_closed(sync: Any, kind: Any) -> None:
    numbers = Numbers()
    stream = kind(sync._wait, numbers)
    next(stream)

    def child() -> list[object]:
        stream.close()
        try:
            return [numbers.closed, next(stream)]
        except ClusterClosed as error:
            return [numbers.closed, str(error)]

    assert in_child(child) == repr([0, FORKED])
    stream.close()
    assert numbers.closed == 1


def test_a_cluster_of_a_parent_process(sync: Any) -> None:
    def child() -> list[str]:
        said = []
        for use in (
            lambda: sync.map(text, [1]),
            lambda: sync.job("j"),
            lambda: sync.stream(text, [1]),
        ):
            try:
                use()
            except ClusterClosed as error:
                said.append(str(error))
        sync.close()
        return said

    assert in_child(child) == repr([FORKED] * 3)
    assert sync.map(text, [1]) == ["1"]


def in_child(work: Callable[[], object]) -> str:
    """Fork; return the ``repr`` of what ``work`` returns in the child."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside other threads.
        pid = os.fork()
    if not pid:
        said = "nothing"
        try:
            said = repr(work())
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


async def test_jobs(cluster: JobCluster, jobs: FakeJobs) -> None:
    threads = set()

    def numbers() -> Iterator[int]:
        for i in range(9):
            threads.add(asyncio._get_running_loop())
            yield i

    def work() -> None:
        job = cluster.sync.submit(text, numbers(), key="k")
        assert jobs.uploads[0].items == list(range(9))
        cluster.sync._wait(arranged())
        other = cluster.sync.job("j")
        assert other.status().total == 9
        status = other.wait()
        assert isinstance(status, JobStatus) and status.state == "failed"
        with pytest.raises(ItemRaised):
            other.results()
        assert len(other.results(return_exceptions=True)) == 9
        with other.stream() as stream:
            first = [next(stream).index for _ in range(4)]
        rest = [outcome.index for outcome in other.stream(after=stream.position)]
        assert first + rest == [3, 4, 5, 0, 1, 2, 6, 7, 8]
        assert [o.index for o in other.stream(ordered=True)] == list(range(9))
        assert job.cancel().state == "cancelled"
        job.delete()
        with pytest.raises(UnknownJob):
            job.status()
        assert repr(job) == "SyncJob('job1')"

    async def arranged() -> None:
        arrange(jobs)

    await asyncio.to_thread(work)
    assert threads == {None}


def test_items_that_end_the_program_end_the_callers_thread_alone(sync: Any) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise SystemExit("a bad row")

    found = []
    with pytest.raises(SystemExit, match="a bad row"):
        for outcome in sync.stream(text, items()):
            found.append(outcome.value)
    assert found == ["1"]
    assert sync.map(text, [2]) == ["2"]
