"""The settings of workers and chunks."""

from __future__ import annotations

import pytest

from jetmap.settings import Settings, workers


@pytest.mark.parametrize(
    ("arena_bytes", "processes", "share"),
    [
        (0, 1, 0),
        ("1023KiB", 1, 0),
        ("1MiB", 1, 1 << 20),
        ("64MiB", 1, 64 << 20),
        ("64MiB", 8, 8 << 20),  # A sixteenth of the memory is for all processes.
        ("64MiB", 65, 0),
    ],
)
def test_shared_memory(
    arena_bytes: int | str, processes: int, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "memory", lambda: 1 << 30)
    assert Settings.load(arena_bytes=arena_bytes).chunks.arena(processes=processes) == share


@pytest.mark.parametrize("zero", [0, "0", "0.0"])
def test_what_is_off_unless_it_is_set_is_off_with_zero(zero: int | str) -> None:
    """An option or a variable can switch off what a file sets."""
    off = dict.fromkeys(("recycle_age", "recycle_memory", "worker_memory"), zero)
    found = Settings.load(**off, recycle_chunks=0).workers
    assert found.recycle_chunks is found.recycle_age is None
    assert found.recycle_memory is found.worker_memory is None
