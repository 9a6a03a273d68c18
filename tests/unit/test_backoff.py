"""The pauses between attempts."""

from __future__ import annotations

from jetmap.backoff import Backoff


def test_pauses_double_up_to_a_limit_and_begin_again() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.grow() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.seconds == backoff.grow() == 0.5


def test_what_lasted_long_enough_fails_as_for_the_first_time() -> None:
    backoff = Backoff(1, 8, healthy_after=30)
    assert [backoff.after(lived) for lived in (0, 29, 0, 30, 0)] == [1, 2, 4, 1, 2]
    assert [Backoff(1, 8).after(1e6)] == [1]
