"""The user's runtime directory, and locks in it that end with their process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from pathlib import Path

from jetmap.errors import ConfigurationError
from jetmap.machine import temporary_directory

# Bytes of the directory's path: a socket's path may have 104 (108 on Linux), and our names in it
# have up to 30.
LONGEST = 72


def runtime_directory() -> Path:
    """Return ``$XDG_RUNTIME_DIR/jetmap``, else ``/tmp/jetmap-<uid>``; make it if it is missing.

    Raises ConfigurationError if others could write there, or if nothing is writable.
    """
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    fits = len(os.fsencode(own)) <= LONGEST - 20
    # (Unlike ``Path.is_dir``, ``isdir`` does not raise for a path that others have closed.)
    if fits and os.path.isdir(own) and os.access(own, os.W_OK):  # noqa: PTH112
        directory = Path(own) / "jetmap"
    else:
        base = temporary_directory()
        if len(os.fsencode(base)) > LONGEST - 20:
            base = "/tmp"
        directory = Path(base) / f"jetmap-{os.getuid()}"
    try:
        with contextlib.suppress(FileExistsError):  # What it is, is looked at below.
            directory.mkdir(mode=0o700)
        found = directory.lstat()
    except OSError as error:
        raise ConfigurationError(
            [
                f"cannot make {directory}: {error.strerror}; set XDG_RUNTIME_DIR to a directory "
                "of yours"
            ]
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            [
                f"{directory} must be a directory of yours that nobody else may enter "
                "(chmod 700), or set XDG_RUNTIME_DIR to one"
            ]
        )
    return directory


def take(path: Path) -> int | None:
    """Lock this file; return an open descriptor that holds the lock, or None if it is taken.

    Processes that inherit the descriptor hold the lock too; the last one to end releases it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between open and lock; then this lock
            # excludes nobody.
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def take_new(path: Path, seconds: float = 1.0) -> int | None:
    """Lock a file that no other process uses; wait for a sweep that found it before it was locked.

    Returns None if it is still taken after this time.
    """
    deadline = time.monotonic() + seconds
    while (descriptor := take(path)) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    return descriptor


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock of this file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # A shared lock, so that two processes that ask at once do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def sweep(directory: Path) -> None:
    """Remove the files that killed processes left behind."""
    for lock in directory.glob("*.lock"):
        descriptor = take(lock) if lock.exists() else None
        if descriptor is not None:
            remove(lock)
            os.close(descriptor)


def remove(lock: Path) -> None:
    """Remove a lock that this process holds, and its files; the lock last."""
    clear(lock)
    lock.unlink(missing_ok=True)


def clear(lock: Path) -> None:
    """Remove the files of a lock, but not the lock."""
    for path in lock.parent.glob(f"{lock.stem}.*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != lock:
            path.unlink(missing_ok=True)


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
