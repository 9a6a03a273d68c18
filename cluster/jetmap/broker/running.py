"""How ``jetmap map``, ``status`` and ``api`` find the ``jetmap up`` of their directory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from .auth import Auth
from .runtime import is_held, remove, runtime_directory, take


class Running(msgspec.Struct, frozen=True):
    """A running ``up``. url: of its NATS server; gateway: of its HTTP gateway, or empty."""

    url: str
    user: str
    password: str
    pid: int
    pool: str = "default"
    gateway: str = ""

    @property
    def auth(self) -> Auth:
        return Auth(user=self.user, password=self.password)

    def __repr__(self) -> str:
        return f"Running({self.url!r}, pid={self.pid}, pool={self.pool!r})"


class Registration:
    """That this process is the ``up`` of a directory; ends with it, at the latest."""

    def __init__(self, lock: Path, descriptor: int) -> None:
        self._lock = lock
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Withdraws it. Twice is harmless."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            remove(self._lock)
            os.close(descriptor)


def register_up(
    cwd: str | os.PathLike[str],
    url: str,
    user: str,
    password: str,
    *,
    pool: str = "default",
    gateway: str = "",
) -> Registration:
    """Lets ``find_running`` find this process's server until ``close``, or its death."""
    lock = runtime_directory() / f"up-{_digest(cwd)}-{os.getpid()}.lock"
    descriptor = take(lock)
    if descriptor is None:
        raise RuntimeError("this process is registered for this directory already")
    running = Running(url, user, password, os.getpid(), pool, gateway)
    os.truncate(descriptor, 0)
    os.write(descriptor, msgspec.json.encode(running))
    return Registration(lock, descriptor)


def find_running(cwd: str | os.PathLike[str], pool: str | None = None) -> Running | None:
    """The newest ``up`` of this directory that is alive (of this pool, if given), or None."""
    found: list[tuple[float, Running]] = []
    for lock in runtime_directory().glob(f"up-{_digest(cwd)}-*.lock"):
        try:
            started, content = lock.stat().st_mtime, lock.read_bytes()
            running = msgspec.json.decode(content, type=Running)
        except (FileNotFoundError, msgspec.DecodeError):
            continue  # it is just ending, or just starting
        if is_held(lock) and pool in (None, running.pool):
            found.append((started, running))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _digest(cwd: str | os.PathLike[str]) -> str:
    return hashlib.sha256(os.fsencode(Path(cwd).resolve())).hexdigest()[:16]
