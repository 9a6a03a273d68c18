"""The link passes streams and blobs to a worker, and takes blobs of results."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from multiprocessing import resource_tracker
from typing import Any

import pytest

from jetmap.embedded import locks
from jetmap.executor.blobs import Blobs
from jetmap.executor.link import Link, WorkerLink
from jetmap.executor.shortcut import ReportReader, ReportSender
from jetmap.wire.messages import Report, encode
from waiting import wait_until

pytestmark = pytest.mark.anyio


def new_link(kept: Blobs, received: list[Report] | None = None) -> Link:
    return Link(kept, ReportReader((received if received is not None else []).extend))


async def linked(use: Callable[[WorkerLink, Blobs], Any], kept: Blobs) -> Any:
    """Run a worker's part in a thread, beside the executor's end."""
    link = new_link(kept)
    try:
        worker = await asyncio.to_thread(WorkerLink, link.path)
        try:
            return await asyncio.to_thread(use, worker, kept)
        finally:
            worker.close()
    finally:
        link.close()


async def test_its_lock_is_its_own_after_a_sweep_that_found_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jetmap.executor.link.secrets.token_hex", lambda size: "swept")
    path = locks.runtime_directory() / f"executor-{os.getpid()}-swept.lock"
    sweeper = locks.take(path)
    assert sweeper is not None

    def sweep(seconds: float) -> None:
        locks.remove(path)
        os.close(sweeper)

    monkeypatch.setattr("jetmap.embedded.locks.time.sleep", sweep)
    link = new_link(Blobs())
    try:
        assert link._lock_fd is not None
        assert locks.is_held(path)
    finally:
        link.close()


async def test_a_worker_gets_the_callers_streams() -> None:
    def use(worker: WorkerLink, kept: Blobs) -> bool:
        stdout, stderr = worker.streams()
        same = os.path.samestat(os.fstat(stdout), os.fstat(1))
        same &= os.path.samestat(os.fstat(stderr), os.fstat(2))
        os.close(stdout)
        os.close(stderr)
        return same

    assert await linked(use, Blobs())


async def test_blobs_travel_both_ways() -> None:
    kept = Blobs()
    number = kept.put(memoryview(b"argument" * 100))

    def use(worker: WorkerLink, kept: Blobs) -> tuple[bytes, int]:
        return bytes(worker.get(number)), worker.put(memoryview(b"result"))

    found, result = await linked(use, kept)
    assert found == b"argument" * 100 and bytes(kept.take(result)) == b"result"


async def test_a_blob_of_a_call_that_was_given_up() -> None:
    with pytest.raises(LookupError, match="given this call up"):
        await linked(lambda worker, kept: worker.get(99), Blobs())


async def test_workers_are_known_until_they_leave() -> None:
    link = new_link(Blobs())
    worker = await asyncio.to_thread(WorkerLink, link.path)
    for fd in await asyncio.to_thread(worker.streams):
        os.close(fd)
    assert link.workers == [os.getpid()]
    worker.close()
    await wait_until(lambda: not link.workers, "the worker is forgotten")
    worker = await asyncio.to_thread(WorkerLink, link.path)
    link.close()
    with pytest.raises(OSError):
        await asyncio.to_thread(worker.streams)
    worker.close()


async def test_a_worker_gets_the_callers_resource_tracker() -> None:
    def use(worker: WorkerLink, kept: Blobs) -> bool:
        fd = worker.tracker()
        same = os.path.samestat(os.fstat(fd), os.fstat(resource_tracker.getfd()))
        os.close(fd)
        return same

    assert await linked(use, Blobs())


async def test_a_blob_for_which_no_file_can_be_opened() -> None:
    """The call fails, and the worker goes on."""
    kept = Blobs()
    number = kept.put(memoryview(b"argument" * 100))

    def full(number: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "too many open files")

    def use(worker: WorkerLink, kept: Blobs) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kept, "share", full)
            with pytest.raises(LookupError):
                worker.get(number)
        return bytes(worker.get(number))

    assert await linked(use, kept) == b"argument" * 100


async def test_a_worker_gets_a_short_way_for_its_reports() -> None:
    received: list[Report] = []
    report = Report("m", 1, 1, 0, 1, b"\x91\x01", [], 0.0)
    link = new_link(Blobs(), received)
    worker = await asyncio.to_thread(WorkerLink, link.path)
    fd = await asyncio.to_thread(worker.reports)
    assert fd is not None
    sender = ReportSender(fd)
    assert sender.send(encode(report))
    await wait_until(lambda: received == [report], "the report has come")
    sender.close()
    worker.close()
    link.close()


async def test_where_there_is_no_short_way_reports_go_to_the_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ReportReader, "connect", lambda self: -1)
    assert await linked(lambda worker, kept: worker.reports(), Blobs()) is None
