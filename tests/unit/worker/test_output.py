"""What functions print: cut into lines, marked with their item, harmless, and bounded."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.worker import lines as module
from jetmap.worker.lines import (
    ATOMIC,
    BURST_SECONDS,
    MAX_LINE,
    SHOW_SECONDS,
    Lines,
    OutputBudget,
    clean,
)
from jetmap.worker.output import Output
from jetmap.worker.progress import LastWords, Progress

quick = examples(200)

PLENTY = 1 << 30


class Kept:
    """Counts what is kept of unfinished lines, and how much was copied for that."""

    def __init__(self) -> None:
        self.text = b""
        self.copied = 0

    def append(self, data: bytes) -> None:
        self.text += data
        self.copied += len(data)

    def clear(self) -> None:
        self.text = b""


def feed(lines: Lines, *pieces: bytes, mark: str = "[m]", now: float = 0.0) -> bytes:
    return b"".join(b"".join(lines.feed(piece, mark, now)) for piece in pieces)


def everything(lines: Lines, *pieces: bytes, mark: str = "[m]", now: float = 0.0) -> bytes:
    return feed(lines, *pieces, mark=mark, now=now) + b"".join(lines.finish(now))


# Lines


@quick
@given(st.binary(max_size=200), st.lists(st.integers(1, 20), min_size=1, max_size=10))
def test_lines_do_not_depend_on_how_they_are_written(data: bytes, sizes: list[int]) -> None:
    pieces = []
    rest, turn = data, 0
    while rest:
        size = sizes[turn % len(sizes)]
        pieces.append(rest[:size])
        rest, turn = rest[size:], turn + 1
    found = everything(Lines(OutputBudget(PLENTY)), *pieces)
    assert found == everything(Lines(OutputBudget(PLENTY)), data)
    expected = b"".join(b"[m] %s\n" % clean(state(line)) for line in data.split(b"\n")[:-1])
    last = state(data.split(b"\n")[-1])
    assert found == expected + (b"[m] %s\n" % clean(last) if last else b"")


def state(line: bytes) -> bytes:
    """What a terminal's line shows, if each state overwrites the last one whole."""
    return next((part for part in reversed(line.split(b"\r")) if part), b"")


def test_text_without_a_newline_belongs_to_its_item() -> None:
    lines = Lines(OutputBudget(PLENTY))
    found = feed(lines, b"one", mark="[m item 1]") + feed(lines, b"two", mark="[m item 2]")
    found += feed(lines, b"three\n", b"four", mark="[m item 3]") + b"".join(lines.finish(0))
    assert found.decode().splitlines() == [
        "[m item 1] one",
        "[m item 2] two",
        "[m item 3] three",
        "[m item 3] four",
    ]
    assert not lines.unfinished and lines.finish(0) == []


@pytest.mark.parametrize("end", ["", "\r"])
@pytest.mark.parametrize("start", ["", "\r"])
def test_updates_of_a_line_cost_what_they_weigh(start: str, end: str) -> None:
    kept = Kept()
    lines = Lines(OutputBudget(PLENTY), kept)
    updates = [f"{start}{n} of 20000{end}".encode() for n in range(20_000)]
    total = sum(map(len, updates))
    found = everything(lines, *updates)
    assert kept.copied <= total and kept.text == b""
    if start or end:
        assert found == b"[m] 19999 of 20000\n"
    else:
        assert len(found) >= total


def test_a_progress_bar_shows_a_state_now_and_then() -> None:
    lines = Lines(OutputBudget(PLENTY))
    found = b""
    for second in range(60):
        found += feed(lines, b"\r%d s" % second, now=float(second))
    found += b"".join(lines.finish(60))
    shown = [int(line.split()[1]) for line in found.splitlines()]
    assert shown[-1] == 59 and 60 / SHOW_SECONDS <= len(shown) + 1 <= 60 / SHOW_SECONDS + 2


def test_windows_line_ends_are_line_ends() -> None:
    assert everything(Lines(OutputBudget(PLENTY)), b"a\r\nb\r", b"\nc") == b"[m] a\n[m] b\n[m] c\n"


@pytest.mark.parametrize("piece", [1_000, MAX_LINE, 1 << 20, 5 << 20])
def test_a_line_without_an_end_takes_bounded_memory(piece: int) -> None:
    kept = Kept()
    lines = Lines(OutputBudget(PLENTY), kept)
    found, total = [], 0
    while total < 5 << 20:
        found += lines.feed(b"x" * piece, "[m]", 0.0)
        total += piece
        assert len(kept.text) <= MAX_LINE
    found += lines.finish(0.0)
    written = b"".join(found)
    assert written.count(b"x") == total and kept.copied <= total
    assert max(map(len, written.splitlines())) == MAX_LINE + len("[m] ")


def test_what_is_written_at_once_does_not_mix_with_others() -> None:
    lines = Lines(OutputBudget(PLENTY))
    writes = lines.feed(b"".join(b"line %d\n" % n for n in range(5_000)), "[m]", 0.0)
    assert all(len(write) <= ATOMIC and write.endswith(b"\n") for write in writes)
    assert b"".join(writes).count(b"\n") == 5_000


# Bounded


@quick
@given(st.lists(st.tuples(st.integers(0, 5_000), st.floats(0, 5)), max_size=50))
def test_a_budget_is_kept(spending: list[tuple[int, float]]) -> None:
    budget, now, spent = OutputBudget(1_000), 0.0, 0
    largest = max((size for size, _ in spending), default=0)
    for size, pause in spending:
        now += pause
        if budget.take(size, now):
            spent += size
        assert spent <= 1_000 * (BURST_SECONDS + now) + largest


@pytest.mark.parametrize("line", [b"x\n", b"x" * 79 + b"\n", b"y" * 100_000 + b"\n"])
def test_too_much_is_dropped_and_counted(line: bytes) -> None:
    rate, total = 100_000, 20 << 20
    lines = Lines(OutputBudget(rate))
    piece = line * max(1, (1 << 20) // len(line))
    written, fed = bytearray(), 0
    while fed < total:
        written += feed(lines, piece)
        fed += len(piece)
    written += b"".join(lines.finish(0.0))
    text = written.decode()
    assert len(text) <= rate * BURST_SECONDS + 2 * MAX_LINE + 500
    found = re.findall(r"^\[m\] \.\.\. ([\d,]+) lines \(([\d,]+) bytes\) dropped: .*output_bytes",
                       text, re.MULTILINE)  # fmt: skip
    dropped = sum(int(size.replace(",", "")) for _, size in found)
    shown = sum(row.count(line[:1].decode()) for row in text.splitlines() if "dropped" not in row)
    content = fed if line != b"x\n" else fed // 2
    assert found and shown <= content - dropped // 2 and dropped >= fed - len(text)


def test_after_a_pause_there_is_room_again() -> None:
    lines = Lines(OutputBudget(10))
    feed(lines, b"x" * 100 + b"\n", b"lost\n")
    assert lines.unfinished, "there is something to say"
    (found,) = lines.feed(b"later\n", "[m]", 100.0)
    assert b"1 lines (5 bytes) dropped" in found and found.endswith(b"[m] later\n")


# Harmless


@quick
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")))
def test_a_line_drives_no_terminal(line: bytes) -> None:
    text = clean(line).decode("utf-8")
    assert all(unicodedata.category(c) != "Cc" or c == "\t" for c in text)


@quick
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\t"), max_size=40))
def test_text_stays_as_it_is(text: str) -> None:
    assert clean(text.encode()).decode() == text


def test_control_characters_can_be_read() -> None:
    found = clean("\x1b]0;title\x07 \x9b2J \x7f\tä€😀".encode() + b"\xff")
    assert found.decode() == "\\x1b]0;title\\x07 \\x9b2J \\x7f\tä€😀\\xff"


# Last words


@quick
@given(st.lists(st.none() | st.binary(max_size=6_000), max_size=12))
def test_the_end_of_an_unfinished_line_outlives_its_process(pieces: list[bytes | None]) -> None:
    agent = Progress.create()
    worker = Progress(os.dup(agent.fd))
    try:
        for mine, theirs in zip(worker.last_words, agent.last_words, strict=True):
            expected = b""
            for piece in pieces:
                if piece is None:
                    mine.clear()
                    expected = b""
                else:
                    mine.append(piece)
                    expected += piece
                found = theirs.read()
                assert expected.endswith(found)
                assert len(found) == min(len(expected), len(theirs._ring))
    finally:
        worker.close()
        agent.close()


def test_last_words_cost_what_they_weigh() -> None:
    agent = Progress.create()
    lines = Lines(OutputBudget(PLENTY), agent.last_words[0])
    for n in range(10_000):
        lines.feed(b"%d." % (n % 10), "[m]", 0.0)
    assert agent.last_words[0].read().endswith(b"8.9.")
    assert agent.last_words[0]._head[0] == 20_000, "each byte was written once"
    agent.close()


# The streams


class Harness:
    """An ``Output`` to a pipe, and what came through."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.mark = "[m item 1]"
        self.needs = 0
        self.output = Output(lambda: self.mark, self.writing, PLENTY, self._need)

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
    """In the test itself: pytest sets its own streams between a fixture and a test."""
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


def test_a_page_that_is_full_of_words() -> None:
    page = memoryview(bytearray(16 + 8))
    words = LastWords(page)
    words.append(b"0123456789")
    assert words.read() == b"23456789"
    words.clear()
    assert words.read() == b""


def test_shared_pages_need_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/directory")
    Progress.create().close()
