"""Limits of one process."""

from __future__ import annotations

from jetmap.settings import LimitSettings


def test_limits_that_fit_into_a_message() -> None:
    limits = LimitSettings()
    assert limits.fitting(1000).max_item_bytes == 1000
    assert limits.fitting(1 << 40).max_item_bytes == limits.max_item_bytes
    assert limits.memory_budget() > 0
    assert LimitSettings(max_memory_bytes=7).memory_budget() == 7
