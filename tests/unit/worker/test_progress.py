"""The pages that an agent and its worker share: each word has one writer."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.worker.lines import (
    MarkedLines,
    OutputBudget,
)
from jetmap.worker.progress import ITEM, STRETCH_SHIFT, LastWords, ProgressPages

quick = examples(200)

PLENTY = 1 << 30


@quick
@given(st.lists(st.tuples(st.integers(0, 2**47), st.integers(0, 2**63)), max_size=5))
def test_both_ends_see_the_same_words(items: list[tuple[int, int]]) -> None:
    agent = ProgressPages.create()
    worker = ProgressPages(os.dup(agent.fd))
    assert (agent.item, agent.started_ns, agent.stopping) == (None, 0, False)
    for item, started in items:
        worker.enter(item, started)
        assert (agent.item, agent.started_ns) == (item, started)
        agent.ask_to_stop()
        assert worker.stopping
        agent.ask_to_stop(False)
        assert not worker.stopping
        worker.expect(1 + started / 1e9, 0.5)
        assert agent.due(0) == pytest.approx(1 + started / 1e9)
        assert agent.due(3) == pytest.approx(2.5 + started / 1e9)
    assert worker.begin(1) and agent.due(3) == 0.0, "of the chunk before"
    worker.leave()
    # What a dead worker wrote is still there.
    worker.close()
    assert (agent.item, agent.started_ns) == (None, 0)
    agent.close()


def test_a_chunk_that_was_skipped_in_time_is_not_begun() -> None:
    agent = ProgressPages.create()
    worker = ProgressPages(os.dup(agent.fd))
    assert worker.begin(1)
    assert agent.skip(3) == 1, "the first one has begun"
    assert not worker.begin(2) and not worker.begin(3)
    assert agent.begun == 3 and worker.begin(4)
    worker.close()
    agent.close()


def test_between_two_items_the_last_one_is_still_the_author() -> None:
    progress = ProgressPages.create()
    assert progress.latest_stretch == (None, 1)
    progress.enter(7)
    progress.leave()
    assert (progress.item, progress.latest_stretch) == (None, (7, 1))
    progress.leave()
    assert progress.latest_stretch == (7, 1)
    progress.words[ITEM] = (3 << STRETCH_SHIFT) | 9
    progress.leave()
    assert (progress.item, progress.latest_stretch) == (None, (8, 4))
    progress.close()


def test_a_forked_child_writes_to_a_copy() -> None:
    agent = ProgressPages.create()
    child = ProgressPages(os.dup(agent.fd))
    child.enter(1)
    child.leave_to_parent()
    child.enter(2)
    assert (agent.item, child.item) == (1, 2)
    agent.close()


@quick
@given(st.lists(st.none() | st.binary(max_size=6_000), max_size=12))
def test_the_end_of_an_unfinished_line_outlives_its_process(pieces: list[bytes | None]) -> None:
    agent = ProgressPages.create()
    worker = ProgressPages(os.dup(agent.fd))
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
    agent = ProgressPages.create()
    lines = MarkedLines(OutputBudget(PLENTY), agent.last_words[0])
    for n in range(10_000):
        lines.feed(b"%d." % (n % 10), "[m]", 0.0)
    assert agent.last_words[0].read().endswith(b"8.9.")
    assert agent.last_words[0]._head[0] == 20_000, "each byte was written once"
    agent.close()


def test_a_page_that_is_full_of_words() -> None:
    page = memoryview(bytearray(16 + 8))
    words = LastWords(page)
    words.append(b"0123456789")
    assert words.read() == b"23456789"
    words.clear()
    assert words.read() == b""


def test_shared_pages_need_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/directory")
    ProgressPages.create().close()
