"""Locks in the user's runtime directory, and what killed processes left there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jetmap.embedded.locks import clear, is_held, remove, runtime_directory, sweep, take
from jetmap.errors import ConfigurationError


@pytest.fixture(autouse=True)
def own_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a short path: a long one is not used, and the user's own one is."""
    with tempfile.TemporaryDirectory(prefix="jm-", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def test_a_lock_is_held_once_and_survives_its_files_removal(own_directory: Path) -> None:
    lock = own_directory / "x.lock"
    first = take(lock)
    assert first is not None and take(lock) is None
    lock.unlink()
    second = take(lock)
    assert second is not None
    os.close(first)
    assert take(lock) is None
    os.close(second)


def test_a_runtime_directory_that_others_may_enter_is_refused(own_directory: Path) -> None:
    runtime_directory().chmod(0o755)
    with pytest.raises(ConfigurationError, match="nobody else may enter"):
        runtime_directory()


def test_a_runtime_directory_too_long_for_sockets_is_not_used(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = own_directory / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert long not in runtime_directory().parents


def test_a_lock_is_seen_by_others_until_it_is_let_go(own_directory: Path) -> None:
    lock = own_directory / "x.lock"
    assert not is_held(lock)
    descriptor = take(lock)
    assert descriptor is not None and is_held(lock) and is_held(lock)
    inherited = os.dup(descriptor)  # As a child has it.
    os.close(descriptor)
    assert is_held(lock)
    os.close(inherited)
    assert not is_held(lock) and lock.exists()


def test_only_what_nobody_holds_is_swept(own_directory: Path) -> None:
    held, left = own_directory / "held.lock", own_directory / "left.lock"
    descriptor = take(held)
    assert descriptor is not None
    left.touch()
    for lock in (held, left):
        lock.with_suffix(".sock").touch()
        lock.with_suffix(".nats").mkdir()
        (lock.with_suffix(".nats") / "store").touch()
    (own_directory / "other").touch()
    sweep(own_directory)
    names = sorted(path.name for path in own_directory.iterdir())
    assert names == ["held.lock", "held.nats", "held.sock", "other"]
    clear(held)
    assert sorted(path.name for path in own_directory.iterdir()) == ["held.lock", "other"]
    remove(held)
    os.close(descriptor)
    assert [path.name for path in own_directory.iterdir()] == ["other"]
