"""Locks in the user's runtime directory, and what killed processes left there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jetmap.embedded import locks
from jetmap.embedded.locks import (
    clear,
    is_held,
    remove,
    runtime_directory,
    sweep,
    take,
    take_new,
)
from jetmap.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("runtime")


def test_a_lock_is_held_once_and_survives_its_files_removal(runtime: Path) -> None:
    lock = runtime / "x.lock"
    first = take(lock)
    assert first is not None and take(lock) is None
    lock.unlink()
    second = take(lock)
    assert second is not None
    os.close(first)
    assert take(lock) is None
    os.close(second)


def test_a_runtime_directory_that_others_may_enter_is_refused(runtime: Path) -> None:
    runtime_directory().chmod(0o755)
    with pytest.raises(ConfigurationError, match="nobody else may enter"):
        runtime_directory()


def test_a_runtime_directory_too_long_for_sockets_is_not_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert long not in runtime_directory().parents


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_runtime_directory_that_is_none_is_not_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (runtime / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / name))
    monkeypatch.setattr(locks, "temporary_directory", lambda: str(runtime))
    assert runtime_directory() == runtime / f"jetmap-{os.getuid()}"


def test_a_runtime_directory_that_others_have_closed_is_not_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ``su``, which keeps the variable, it may be another user's."""

    def stat(path: object, **options: object) -> object:
        if str(path).startswith("/run/user/0"):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)  # type: ignore[arg-type]

    real = os.stat
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    monkeypatch.setattr(locks, "temporary_directory", lambda: str(runtime))
    assert runtime_directory() == runtime / f"jetmap-{os.getuid()}"


def test_a_runtime_directory_that_cannot_be_made_is_named(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(locks, "temporary_directory", lambda: str(runtime / "gone"))
    with pytest.raises(ConfigurationError, match=r"cannot make .*gone.*set XDG_RUNTIME_DIR"):
        runtime_directory()


def test_what_has_the_name_of_the_runtime_directory_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = runtime / "own"
    own.mkdir()
    (own / "jetmap").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
    with pytest.raises(ConfigurationError, match="must be a directory of yours"):
        runtime_directory()


def test_a_lock_is_seen_by_others_until_it_is_let_go(runtime: Path) -> None:
    lock = runtime / "x.lock"
    assert not is_held(lock)
    descriptor = take(lock)
    assert descriptor is not None and is_held(lock) and is_held(lock)
    inherited = os.dup(descriptor)  # As a child has it.
    os.close(descriptor)
    assert is_held(lock)
    os.close(inherited)
    assert not is_held(lock) and lock.exists()


def test_only_what_nobody_holds_is_swept(runtime: Path) -> None:
    held, left = runtime / "held.lock", runtime / "left.lock"
    descriptor = take(held)
    assert descriptor is not None
    left.touch()
    for lock in (held, left):
        lock.with_suffix(".sock").touch()
        lock.with_suffix(".nats").mkdir()
        (lock.with_suffix(".nats") / "store").touch()
    (runtime / "other").touch()
    sweep(runtime)
    names = sorted(path.name for path in runtime.iterdir())
    assert names == ["held.lock", "held.nats", "held.sock", "other"]
    clear(held)
    assert sorted(path.name for path in runtime.iterdir()) == ["held.lock", "other"]
    remove(held)
    os.close(descriptor)
    assert [path.name for path in runtime.iterdir()] == ["other"]


def test_a_new_lock_outlasts_a_sweep_that_was_faster(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = runtime / "x.lock"
    sweeping = take(lock)
    assert sweeping is not None
    assert take_new(lock, 0.0) is None

    def pass_time(seconds: float) -> None:
        remove(lock)
        os.close(sweeping)

    monkeypatch.setattr(locks.time, "sleep", pass_time)
    descriptor = take_new(lock)
    assert descriptor is not None and is_held(lock)
    os.close(descriptor)
