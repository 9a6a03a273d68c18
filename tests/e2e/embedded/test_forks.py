"""A cluster and its streams in a forked process, or in another event loop: they say so at once."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import functions
from jetmap import Cluster, ClusterClosed
from processes import nothing_left, run_python

pytestmark = pytest.mark.anyio

# What a child says of each use; a child that is still there after a while is blocked.
CHILD = """
import json, os, signal, sys, warnings
warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)  # Of a fork.
from functions import is_prime

def in_child(*uses):
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(30)
        said = []
        for use in uses:
            try:
                said.append(f"returned {use()!r}")
            except BaseException as error:
                said.append(f"{type(error).__name__}: {error}")
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(said) if said else f"killed by signal {status}"
"""
OWN = (
    CHILD
    + """
import multiprocessing
from jetmap import Cluster

def own(queue):
    signal.alarm(30)
    with Cluster().sync as cluster:
        queue.put(cluster.map(is_prime, [8]))

if __name__ == "__main__":
    forking = multiprocessing.get_context("fork")
    with Cluster().sync as cluster:
        stream = cluster.stream(is_prime, [7] * 100, ordered=True)
        next(stream)
        said = in_child(
            lambda: cluster.map(is_prime, [7]),
            lambda: cluster.stream(is_prime, [7]),
            lambda: next(stream),
            lambda: cluster.functions,
            stream.close,
            cluster.close,
            lambda: cluster.map(is_prime, [7]),
        )
        queue = forking.SimpleQueue()
        child = forking.Process(target=own, args=(queue,), daemon=True)
        child.start()
        child.join()
        own = [child.exitcode, None if queue.empty() else queue.get()]
        print(json.dumps([said, own, cluster.map(is_prime, [7]), len(list(stream))]))
"""
)
FORKED = "ClusterClosed: this cluster was started before this process was forked; start one here"


def test_sync_after_a_fork(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(OWN, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said, own, values, left = json.loads(done.stdout)
    ended = "returned None"  # What is the parent's goes on there.
    assert said == [FORKED, FORKED, FORKED, FORKED, ended, ended, FORKED]
    assert own == [0, [False]]  # A cluster of the child's own works.
    assert (values, left) == ([True], 99)


async def test_an_open_stream_after_a_fork(cluster: Cluster) -> None:
    async with cluster.stream(functions.is_prime, [7] * 100) as stream:
        await anext(stream)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            said = []
            for read in (stream.__anext__, stream.next_batch, stream.aclose):
                try:
                    read().send(None)
                except BaseException as error:
                    said.append(f"{type(error).__name__}: {error}")
            os.write(writing, json.dumps(said).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = json.loads(await asyncio.to_thread(pipe.read))
        await asyncio.to_thread(os.waitpid, pid, 0)
        refused = "ClusterClosed: this stream was opened before this process was forked"
        assert said == [refused, refused, "StopIteration: "]
        assert len([outcome async for outcome in stream]) == 99


async def test_an_open_stream_in_another_loop(cluster: Cluster) -> None:
    stream = cluster.stream(functions.is_prime, [7] * 100)
    await anext(stream)
    said: list[str] = []

    def elsewhere(*uses: Callable[[], object]) -> None:
        async def run() -> None:
            for use in uses:
                try:
                    await use()  # type: ignore[misc]
                except ClusterClosed as error:
                    said.append(str(error))

        asyncio.run(run())

    thread = threading.Thread(target=elsewhere, args=(stream.__anext__, stream.next_batch))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert said == ["this stream belongs to another event loop: read it there"] * 2
    assert len([outcome async for outcome in stream]) == 99
