"""Output past ``sys.stdout``: marked with its item, within its rate, and never lost at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from jetmap.agent.output_relay import OutputRelay, WorkerOutput


class Reader:
    """The end of a pipe that a relay writes to."""

    def __init__(self) -> None:
        self.source, sink = os.pipe()
        self.relay = OutputRelay(sink)
        self.text = ""

    def until(self, part: str) -> str:
        while part not in self.text:
            self.text += os.read(self.source, 65_536).decode()
        return self.text


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    os.close(made.source)


def worker(reader: Reader, mark: str, rate: int = 1 << 20) -> tuple[WorkerOutput, int]:
    """Start a worker's pipe; return it with a copy of the worker's end."""
    output = reader.relay.open(rate)
    sink = os.dup(output.sink)
    output.mark = lambda: mark
    output.started()
    return output, sink


def test_lines_of_several_workers_are_marked_and_whole(reader: Reader) -> None:
    pairs = [worker(reader, f"[{name}]") for name in "ab"]
    for _, sink in pairs:
        os.write(sink, b"begun ")
    for _, sink in pairs:
        os.write(sink, b"and ended\n")
    reader.until("[b] begun and ended\n")
    assert "[a] begun and ended\n" in reader.until("[a]")
    for output, sink in pairs:
        os.close(sink)
        output.end("[gone]", [])


def test_what_a_dead_worker_left_is_written_before_its_last_words(reader: Reader) -> None:
    output, sink = worker(reader, "[item 3]")
    os.write(sink, b"no newline")
    os.close(sink)
    output.end("[item 4]", [b"Fatal Python error", b""])
    said = reader.until("Fatal Python error\n")
    assert said.index("no newline") < said.index("[item 4] Fatal Python error")


def test_a_flood_is_cut_and_counted(reader: Reader) -> None:
    output, sink = worker(reader, "[w]", rate=1000)
    for _ in range(30):
        os.write(sink, b"x" * 999 + b"\n")
    os.close(sink)
    output.end("[w]", [])
    assert len(reader.until("dropped")) < 15_000


def test_a_reader_that_is_gone_stops_nothing(reader: Reader) -> None:
    source, sink = os.pipe()
    deaf = OutputRelay(sink)
    os.close(source)
    output = deaf.open(1000)
    os.write(output.sink, b"to nobody\n")
    output.started()
    output.end("[w]", [])
    unused = deaf.open(1000)
    unused.discard()
    again, end = worker(reader, "[x]")
    os.write(end, b"heard\n")
    reader.until("[x] heard\n")
    os.close(end)
    again.end("[x]", [])
