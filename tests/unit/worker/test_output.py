"""The output of functions: cut into lines, marked with their item, harmless, and bounded."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from jetmap.worker import lines as module
from jetmap.worker import output
from jetmap.worker.lines import (
    ATOMIC,
)
from jetmap.worker.output import Output

PLENTY = 1 << 30


# The streams


class Harness:
    """An ``Output`` to a pipe, and what came through."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.mark = "[m item 1]"
        self.needs = 0
        self.is_in_item = False
        self.output = Output(
            *(lambda: self.mark, self.writing, PLENTY, self._need),
            in_item=lambda: self.is_in_item,
        )

    def _need(self) -> None:
        self.needs += 1

    def said(self) -> list[str]:
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.reading, 65_536):
                data += piece
        return data.decode().splitlines()


NAMES = ("stdout", "stderr", "__stdout__", "__stderr__")


@contextlib.contextmanager
def redirected() -> Iterator[Harness]:
    """Redirect the output within the test: pytest sets its own streams after a fixture."""
    before = {name: getattr(sys, name) for name in NAMES}
    made = Harness()
    made.output.redirect()
    try:
        yield made
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
        os.close(made.reading)
        with contextlib.suppress(OSError):
            os.close(made.writing)


def test_the_streams_are_text_streams() -> None:
    with redirected():
        for stream, fd in (
            (sys.stdout, 1),
            (sys.stderr, 2),
            (sys.__stdout__, 1),
            (sys.__stderr__, 2),
        ):
            assert type(stream) is io.TextIOWrapper and isinstance(stream.buffer, io.BufferedIOBase)
            assert stream.encoding == "utf-8" and stream.errors == "backslashreplace"
            assert stream.fileno() == fd and stream.mode == "w" and stream.newlines is None
            assert stream.name == ("<stdout>" if fd == 1 else "<stderr>")
            assert stream.writable() and not stream.readable() and not stream.seekable()
            assert not stream.isatty() and not stream.closed and stream.line_buffering is False
            buffer: Any = stream.buffer
            assert buffer.mode == "wb" and buffer.raw.fileno() == fd
            with pytest.raises(io.UnsupportedOperation):
                stream.read()


USES: dict[str, Any] = {
    "reconfigure": lambda: sys.stdout.reconfigure(encoding="utf-8", line_buffering=True),
    "rewrap": lambda: setattr(
        sys, "stdout", io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
    ),
    "detach": lambda: setattr(
        sys, "stdout", io.TextIOWrapper(sys.stdout.detach(), "utf-8", errors="replace")
    ),
    "stderr as stdout": lambda: setattr(sys, "stdout", sys.stderr),
    "close": lambda: sys.stdout.close(),
    "writelines": lambda: sys.stdout.writelines([]),
    "flush": lambda: sys.stdout.flush(),
    "bytes": lambda: sys.stdout.buffer.write(b""),
    "codecs": lambda: setattr(
        sys, "stdout", __import__("codecs").getwriter("utf-8")(sys.stdout.buffer)
    ),
}


@pytest.mark.parametrize("use", USES)
def test_common_first_lines(use: str) -> None:
    with redirected() as harness:
        USES[use]()
        print("häßlich")
        print("no end", end="")
        harness.output.finish()
        assert harness.said() == ["[m item 1] häßlich", "[m item 1] no end"]


def test_a_wrapper_for_each_item() -> None:
    with redirected() as harness:
        for item in range(3):
            harness.mark = f"[m item {item}]"
            sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
            gc.collect()
            print("wrapped", end="")
            assert harness.output.finish(), "it is flushed after each item from now on"
        assert harness.said() == [f"[m item {item}] wrapped" for item in range(3)]


def test_streams_that_their_owner_flushes_cost_items_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    with redirected() as harness:
        sys.stdout, sys.stderr = out, err
        assert harness.output.finish(), "nobody else flushes them"
        monkeypatch.setattr(output, "flushed_elsewhere", (out, err))
        assert not harness.output.finish()
        sys.stdout = io.TextIOWrapper(io.BytesIO())
        assert harness.output.finish(), "it is another one"


def test_streams_do_not_mix_within_a_line() -> None:
    with redirected() as harness:
        print("out", end="")
        print("err", end="", file=sys.stderr)
        print("put")
        print("or", file=sys.stderr)
        assert harness.said() == ["[m item 1] output", "[m item 1] error"]


def test_bytes_of_half_a_character() -> None:
    with redirected() as harness:
        first, second = "ä".encode()[:1], "ä".encode()[1:]
        sys.stdout.buffer.write(b"<" + first)
        sys.stdout.buffer.write(second + b">\n" + first)
        harness.output.finish()
        assert harness.said() == ["[m item 1] <ä>", "[m item 1] \\xc3"]


def test_redirecting_and_lone_surrogates() -> None:
    with redirected() as harness:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            print("inside")
        print("\ud800")
        assert text.getvalue() == "inside\n" and harness.said() == ["[m item 1] \\ud800"]


def test_only_what_is_unfinished_asks_for_the_items_end() -> None:
    with redirected() as harness:
        print("a whole line")
        harness.output.finish()
        harness.output.finish()
        before = harness.needs
        sys.stdout.write("a whole line\n")
        assert harness.needs == before
        sys.stdout.write("half a line")
        assert harness.needs == before + 1


def test_output_to_nowhere_fails_no_function() -> None:
    with redirected() as harness:
        os.close(harness.reading)
        print("lost")
        os.close(harness.writing)
        print("lost")
        harness.reading = os.open(os.devnull, os.O_RDONLY)
        assert module.MAX_LINE > ATOMIC


class FakeTimer:
    """A timer that a test fires."""

    made: ClassVar[list[FakeTimer]] = []

    def __init__(self, seconds: float, fire: Callable[[], None]) -> None:
        assert seconds == output.LATE_SECONDS
        self.daemon = False
        self.fire = fire

    def start(self) -> None:
        assert self.daemon, "it must not keep the worker from its end"
        self.made.append(self)


def test_a_threads_line_ends_by_itself_when_no_item_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers: list[FakeTimer] = []
    monkeypatch.setattr(FakeTimer, "made", timers)
    monkeypatch.setattr(threading, "Timer", FakeTimer)
    with redirected() as made:

        def talk(text: str) -> None:
            thread = threading.Thread(target=print, args=(text,), kwargs={"end": ""})
            thread.start()
            thread.join()

        made.is_in_item = True
        talk("begun in an item, ")
        timers.pop().fire()
        assert made.said() == [] and len(timers) == 1, "it looks again"
        talk("ended behind it")
        made.is_in_item = False
        timers.pop().fire()
        assert made.said() == ["[m item 1] begun in an item, ended behind it"]
        print("of the item itself", end="")
        assert made.said() == [] and not timers, "its end comes soon"
        made.output.finish()
        assert made.said() == ["[m item 1] of the item itself"]
