"""Output that goes to one descriptor after another, with pipes in place of stdout and stderr."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import pytest

from jetmap.embedded import output_relay
from jetmap.embedded.output_relay import Relay
from jetmap.worker.output import write_all
from waiting import wait_until_sync


class Process:
    """A process whose stdout and stderr are relayed. printer: its stdout."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends: list[int] = []
        null, dup = os.open(os.devnull, os.O_WRONLY), os.dup
        with monkeypatch.context() as patch:
            patch.setattr(output_relay.os, "dup2", lambda sink, _: self.ends.append(dup(sink)))
            patch.setattr(output_relay.os, "dup", lambda _: null)
            self.relay = Relay()
        self.printer = self.ends[0]

    def point(self) -> int:
        """Relay to a new reader from now on, and return its descriptor."""
        reader, target = os.pipe()
        self.ends.append(reader)
        self.relay.point(target)
        wait_until_sync(lambda: self.relay._target == target, "the relay has changed over")
        return reader

    def end(self) -> None:
        self.relay.close(30)
        assert not self.relay._thread.is_alive()
        self.relay._switch(None)
        for end in (*self.ends, self.relay._source, self.relay._wake, self.relay._waker):
            os.close(end)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    made = Process(monkeypatch)
    yield made
    made.end()


def test_each_reader_gets_what_is_printed_in_its_time(process: Process) -> None:
    first = process.point()
    os.write(process.printer, b"one")
    assert os.read(first, 100) == b"one"
    second = process.point()
    assert os.read(first, 100) == b"", "its descriptor is closed"
    os.write(process.printer, b"two")
    assert os.read(second, 100) == b"two"


def test_output_without_a_reader_is_dropped(process: Process) -> None:
    gone = process.point()
    os.close(gone)
    process.ends.remove(gone)
    os.write(process.printer, b"lost")
    process.relay.point(None)
    os.write(process.printer, b"lost as well" * 10_000)
    reader = process.point()
    os.write(process.printer, b"read")
    assert os.read(reader, 100) == b"read"


def test_the_rest_is_passed_on_at_the_end(process: Process) -> None:
    reader = process.point()
    os.write(process.printer, b"the rest")
    process.relay.close(30)
    assert os.read(reader, 100) == b"the rest"


def test_a_full_reader_that_another_program_made_non_blocking(process: Process) -> None:
    reader = process.point()
    target = process.relay._target
    assert target is not None
    os.set_blocking(target, False)
    sent = b"x" * 200_000  # More than a pipe holds.
    writing = threading.Thread(target=write_all, args=(process.printer, sent))
    writing.start()
    wait_until_sync(lambda: not select.select([], [target], [], 0)[1], "its pipe is full")
    found = b""
    while len(found) < len(sent) and (more := os.read(reader, len(sent))):
        found += more
    writing.join()
    assert found == sent
