"""The worker's loop: frames of the agent in, frames of outcomes out. Its process is not there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jetmap.codecs import types
from jetmap.wire import frames, shared_memory
from jetmap.wire.messages import Chunk, FunctionRef, Place, Report, Together
from jetmap.wire.protocol import OLDEST_PROTOCOL
from jetmap.wire.seals import KEY_BYTES, seal_of
from jetmap.wire.shared_memory import Segment, Writer
from jetmap.wire.subjects import new_id
from jetmap.wire.worker_start import Joined, Setup
from jetmap.worker import main as worker_main
from jetmap.worker.aftermath import WorkerAftermath
from jetmap.worker.dispositions import Dispositions
from jetmap.worker.progress import ProgressPages
from new_process import new_process

TASKS = """
from jetmap import task
from jetmap.worker import main

@task
def double(n: int) -> int:
    assert main.in_item
    return 2 * n

@task
def long(n: int) -> str:
    return "x" * n

@task(batch=4)
def total(items: list[int]) -> list[int]:
    return [sum(items)] * len(items)
"""
INLINE = 1_000


class NoOutput:
    """The standard streams of the tests stay where they are."""

    def __init__(self, *arguments: Any) -> None:
        self.mark = arguments[0]

    def redirect(self) -> None: ...

    def finish(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A file of tasks and an empty registry, and nothing of this process is changed for good."""
    monkeypatch.setattr(types, "run_script", types.run_script)
    monkeypatch.setattr(worker_main, "Output", NoOutput)
    monkeypatch.setattr(worker_main, "show_logs", lambda *arguments: None)
    monkeypatch.setattr(worker_main, "mark_records", lambda *arguments: None)
    monkeypatch.setattr(worker_main.atexit, "register", lambda function: None)
    monkeypatch.setattr(Dispositions, "watch", lambda self: None)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "loop_tasks.py").write_text(TASKS)
    (tmp_path / "broken_tasks.py").write_text("1 / 0\n")
    with new_process(monkeypatch, tmp_path):
        yield


class Run:
    """A worker that was given frames until the agent closed the pipe, and its answers."""

    def __init__(
        self, *given: tuple[bytes, object], tasks: str = "loop_tasks.py", key: bytes = b""
    ) -> None:
        agent, worker = socket.socketpair()
        setup = Setup(
            tasks=[tasks],
            memory_limit=None,
            max_value=1 << 20,
            max_report=1 << 20,
            inline=INLINE,
            output_bytes=1,
            log_level="info",
            key=key,
        )
        for kind, message in ((frames.SETUP, setup), *given):
            agent.sendall(frames.frame(kind, msgspec.msgpack.encode(message)))
        agent.shutdown(socket.SHUT_WR)
        self.progress = ProgressPages.create()
        aftermath = WorkerAftermath()
        loop = worker_main._Worker(
            frames.BlockingPipe(worker),
            self.progress,
            -1,
            aftermath,
            Dispositions(aftermath.needed),
        )
        loop.run()
        worker.close()
        answers = frames.BlockingPipe(agent)
        self.answers: list[tuple[bytes, bytes]] = []
        while (received := answers.receive()) is not None:
            self.answers.append(received)
        agent.close()

    @property
    def kinds(self) -> list[bytes]:
        """The answers to chunks, by their kinds."""
        ours = (frames.LAST, frames.PART, frames.SKIPPED, frames.VALUES)
        return [kind for kind, _ in self.answers if kind in ours]

    @property
    def reports(self) -> list[Report]:
        decode = msgspec.msgpack.Decoder(Report).decode
        return [decode(data) for kind, data in self.answers if kind == frames.LAST]


def chunk(function: str, items: list[int], *, number: int = 1, **fields: Any) -> Chunk:
    encoded = msgspec.json.encode(items)
    place = number, 1, function, "json", 0, len(items), "inbox", None, 1.0, encoded
    return Chunk(new_id(), *place, **fields)


def test_chunks_are_computed_one_after_the_other() -> None:
    run = Run(
        (frames.CHUNK, chunk("double", [1, 2])), (frames.CHUNK, chunk("double", [3], number=2))
    )
    assert run.answers[0][0] == frames.TASK, "the import is reported first"
    assert frames.READY in dict(run.answers)
    assert [bytes(report.values) for report in run.reports] == [b"[2,4]", b"[6]"]
    assert [kind for kind, _ in run.answers].count(frames.WARMED) == 1, "the first call only"
    assert not worker_main.in_item and run.progress.item is None


def test_tasks_that_raise_end_the_start() -> None:
    run = Run((frames.CHUNK, chunk("double", [1])), tasks="broken_tasks.py")
    assert run.answers[-1][0] == frames.FAILED and b"ZeroDivisionError" in run.answers[-1][1]
    assert run.kinds == []


def test_items_that_did_not_come_with_their_chunk_come_before_it() -> None:
    away = chunk("double", [4])
    away.items, away.at = b"", Place("inbox", 3)
    run = Run((frames.ITEMS, msgspec.Raw(b"[4]")), (frames.CHUNK, away))
    assert [bytes(report.values) for report in run.reports] == [b"[8]"]
    run = Run((frames.CHUNK, away))
    assert run.kinds == [frames.SKIPPED], "the chunk has ended, and its items are gone"


@pytest.mark.skipif(not shared_memory.is_available(), reason="no memory files here")
@pytest.mark.parametrize("key", [b"", b"k" * KEY_BYTES], ids=["open", "sealed"])
def test_items_are_read_in_shared_memory_and_seals_are_over_them(
    monkeypatch: pytest.MonkeyPatch, key: bytes
) -> None:
    monkeypatch.setattr(worker_main.os, "getppid", os.getpid)  # This process is the agent, too.
    items, values = Writer(Segment.create(1 << 20)), Segment.create(1 << 20)
    joined = frames.JOINED, Joined("inbox", items.segment.fd, values.fd, 1)

    def shared(numbers: list[int], *, written: list[int] | None = None) -> Chunk:
        made = chunk("double", numbers)
        if key:
            made.ref = FunctionRef("loop_tasks", "double")
            made.seal = seal_of(made, key)
        region = items.put(msgspec.json.encode(written or numbers))
        assert region is not None
        made.items, made.at = b"", Place("inbox", region.size, region)
        return made

    run = Run(joined, (frames.CHUNK, shared([4, 5])), key=key)
    assert [bytes(report.values) for report in run.reports] == [b"[8,10]"]
    run = Run(joined, (frames.CHUNK, shared([4, 5], written=[6, 7])), key=key)
    (report,) = run.reports
    assert bool(report.errors) == bool(key) and (key or report.values == b"[12,14]")
    gone = shared([4])
    for region in items.arena:
        items.free(region)
    assert Run(joined, (frames.CHUNK, gone), key=key).kinds == [frames.SKIPPED]
    items.segment.close()
    values.close()


def test_a_chunk_whose_function_is_not_here_fails_item_by_item() -> None:
    run = Run((frames.CHUNK, chunk("nowhere", [1, 2])))
    (report,) = run.reports
    assert [error.type for error in report.errors] == ["LookupError"] * 2


def test_a_protocol_that_is_too_old_is_refused_by_its_number() -> None:
    run = Run((frames.CHUNK, chunk("double", [1], protocol=OLDEST_PROTOCOL - 1)))
    (error,) = run.reports[0].errors
    assert f"the caller speaks protocol {OLDEST_PROTOCOL - 1}" in error.message


def test_large_values_go_before_their_report() -> None:
    run = Run((frames.CHUNK, chunk("long", [2 * INLINE])))
    assert run.kinds == [frames.VALUES, frames.LAST]
    (report,) = run.reports
    assert report.values == b"" and report.size == 2 * INLINE + 4


def test_chunks_of_a_batch_share_a_call() -> None:
    one, other = chunk("total", [1, 2]), chunk("total", [3], number=2)
    run = Run(
        (frames.BATCH, Together(2, 0, [])),
        (frames.CHUNK, one),
        (frames.CHUNK, other),
    )
    values = [msgspec.json.decode(report.values) for report in run.reports]
    assert values == [[6, 6], [6]]
