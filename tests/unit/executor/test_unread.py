"""Failures that somebody reads by raising them, and those that nobody has read."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from jetmap.executor.unread import UnreadFailures


def test_a_failure_is_read_when_a_future_raises_it() -> None:
    unread = UnreadFailures()
    failures = [ValueError(name) for name in "abc"]
    for failure in failures:
        unread.add(failure)
    future: Future[None] = Future()
    future.set_exception(failures[1])
    with pytest.raises(ValueError, match="b"):
        future.result()
    unread.discard(failures[2])
    assert unread.take() == [failures[0]]
    assert unread.take() == []


def test_one_that_was_raised_before_calls_got_it_is_unread() -> None:
    unread = UnreadFailures()
    try:
        raise LookupError("x")
    except LookupError as error:
        failure = error
    unread.add(failure)
    unread.add(failure)
    assert unread.take() == [failure]


def test_those_that_were_read_are_not_kept() -> None:
    unread = UnreadFailures()
    first, second = ValueError("1"), ValueError("2")
    unread.add(first)
    with pytest.raises(ValueError, match="1"):
        raise first
    unread.add(second)
    assert [kept for kept, _ in unread._kept] == [second]
