"""Printed text, cut into lines: marked with their item, harmless, and bounded."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.worker.lines import (
    ATOMIC,
    BURST_SECONDS,
    MAX_LINE,
    SHOW_SECONDS,
    MarkedLines,
    OutputBudget,
    as_json,
    clean,
)

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


def feed(lines: MarkedLines, *pieces: bytes, mark: str = "[m]", now: float = 0.0) -> bytes:
    return b"".join(b"".join(lines.feed(piece, mark, now)) for piece in pieces)


def everything(lines: MarkedLines, *pieces: bytes, mark: str = "[m]", now: float = 0.0) -> bytes:
    return feed(lines, *pieces, mark=mark, now=now) + b"".join(lines.finish(now))


@quick
@given(st.binary(max_size=200), st.lists(st.integers(1, 20), min_size=1, max_size=10))
def test_lines_do_not_depend_on_how_they_are_written(data: bytes, sizes: list[int]) -> None:
    pieces = []
    rest, turn = data, 0
    while rest:
        size = sizes[turn % len(sizes)]
        pieces.append(rest[:size])
        rest, turn = rest[size:], turn + 1
    found = everything(MarkedLines(OutputBudget(PLENTY)), *pieces)
    assert found == everything(MarkedLines(OutputBudget(PLENTY)), data)
    expected = b"".join(b"[m] %s\n" % clean(state(line)) for line in data.split(b"\n")[:-1])
    last = state(data.split(b"\n")[-1])
    assert found == expected + (b"[m] %s\n" % clean(last) if last else b"")


def state(line: bytes) -> bytes:
    """Return the text on a terminal's line if each state overwrites the last one whole."""
    return next((part for part in reversed(line.split(b"\r")) if part), b"")


def test_text_without_a_newline_belongs_to_its_item() -> None:
    lines = MarkedLines(OutputBudget(PLENTY))
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
    lines = MarkedLines(OutputBudget(PLENTY), kept)
    updates = [f"{start}{n} of 20000{end}".encode() for n in range(20_000)]
    total = sum(map(len, updates))
    found = everything(lines, *updates)
    assert kept.copied <= total and kept.text == b""
    if start or end:
        assert found == b"[m] 19999 of 20000\n"
    else:
        assert len(found) >= total


def test_a_progress_bar_shows_a_state_now_and_then() -> None:
    lines = MarkedLines(OutputBudget(PLENTY))
    found = b""
    for second in range(60):
        found += feed(lines, b"\r%d s" % second, now=float(second))
    found += b"".join(lines.finish(60))
    shown = [int(line.split()[1]) for line in found.splitlines()]
    assert shown[-1] == 59 and 60 / SHOW_SECONDS <= len(shown) + 1 <= 60 / SHOW_SECONDS + 2


def test_windows_line_ends_are_line_ends() -> None:
    assert (
        everything(MarkedLines(OutputBudget(PLENTY)), b"a\r\nb\r", b"\nc")
        == b"[m] a\n[m] b\n[m] c\n"
    )


@pytest.mark.parametrize("piece", [1_000, MAX_LINE, 1 << 20, 5 << 20])
def test_a_line_without_an_end_takes_bounded_memory(piece: int) -> None:
    kept = Kept()
    lines = MarkedLines(OutputBudget(PLENTY), kept)
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
    lines = MarkedLines(OutputBudget(PLENTY))
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
    rate, total = 100_000, 4 << 20
    lines = MarkedLines(OutputBudget(rate))
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
    lines = MarkedLines(OutputBudget(10))
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


@pytest.mark.parametrize(
    ("mark", "fields"),
    [
        ("[m item 7]", {"map": "m", "item": 7}),
        ("[m items 8-23]", {"map": "m", "items": "8-23"}),
        ("[worker 12]", {"worker": "worker 12"}),
    ],
)
def test_a_line_of_json_names_its_author(mark: str, fields: dict[str, Any]) -> None:
    line = json.loads(as_json(mark, b"text"))
    known = {name: line[name] for name in ("map", "item", "items", "worker") if name in line}
    assert (line["message"], known) == ("text", fields)
