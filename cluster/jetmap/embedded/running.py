"""Register a ``jetmap up`` of a directory, and find it from commands and ``Cluster()``.

Each `up` holds the lock of a file in its user's runtime directory, which only that user may enter.
Beside it are its password, for commands in other directories, and a list of what its workers have
loaded. All of these go with the `up`, at the latest when the next one starts.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from jetmap.nats.auth import Auth

from .locks import is_held, remove, runtime_directory, take_new


class Running(msgspec.Struct, frozen=True):
    """A running ``up``.

    url: its NATS server's address; gateway: its HTTP gateway's, or empty. key: the key, in
    hexadecimal, that seals chunks for its agent (see ``seals``). tasks, cores, reload: as it was
    started. python: its workers' version; version: its jetmap's.
    """

    url: str
    user: str
    password: str
    pid: int
    pool: str = "default"
    gateway: str = ""
    key: str = ""
    tasks: list[str] = []
    cores: str | int | None = None
    reload: bool = False
    python: str = ""
    version: str = ""
    lock: str = ""

    @property
    def is_alive(self) -> bool:
        return is_held(Path(self.lock))

    @property
    def code_file(self) -> Path:
        """The file in which its agent lists what its workers have loaded."""
        return Path(self.lock).with_suffix(".code")

    @property
    def password_file(self) -> Path:
        return Path(self.lock).with_suffix(".password")

    @property
    def auth(self) -> Auth:
        return Auth(user=self.user, password=self.password)

    def __repr__(self) -> str:
        return f"Running({self.url!r}, pid={self.pid}, pool={self.pool!r})"


class Registration:
    """The registration of this process as the ``up`` of a directory; it ends with the process."""

    def __init__(self, lock: Path, descriptor: int, running: Running) -> None:
        self.running = running
        self._lock = lock
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Withdraw the registration. Twice is harmless."""
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
    **more: Any,
) -> Registration:
    """Register this process's server for ``find_running``, until ``close`` or its death.

    more: other fields of ``Running``.
    """
    lock = runtime_directory() / f"up-{_digest(cwd)}-{os.getpid()}.lock"
    descriptor = take_new(lock)
    if descriptor is None:
        raise RuntimeError("this process is registered for this directory already")
    running = Running(url, user, password, os.getpid(), pool, gateway, lock=str(lock), **more)
    _write_secret(running.password_file, password)
    os.truncate(descriptor, 0)
    os.write(descriptor, msgspec.json.encode(running))
    return Registration(lock, descriptor, running)


def already_runs(first: Running) -> str:
    """Explain to the user that an `up` runs in this directory already, and what to do."""
    pool = "" if first.pool == "default" else f" for pool {first.pool}"
    return (
        f"`jetmap up`{pool} runs in this directory already (pid {first.pid}, {first.gateway}): use "
        f"that, end it (kill {first.pid}), add cores with `jetmap worker`, or start this one with "
        "another --pool or elsewhere"
    )


def read_running(lock: str) -> Running | None:
    """Read the registration of an `up`; None if it is gone."""
    try:
        return msgspec.json.decode(Path(lock).read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def find_running(cwd: str | os.PathLike[str], pool: str | None = None) -> Running | None:
    """Find the newest live ``up`` of this directory (and of this pool, if given), or None."""
    found = all_running(cwd, pool)
    return found[-1] if found else None


def all_running(cwd: str | os.PathLike[str], pool: str | None = None) -> list[Running]:
    """List the live ``up``s of this directory, the newest last."""
    found: list[tuple[float, int, Running]] = []
    for lock in runtime_directory().glob(f"up-{_digest(cwd)}-*.lock"):
        try:
            started, content = lock.stat().st_mtime, lock.read_bytes()
            running = msgspec.json.decode(content, type=Running)
        except (FileNotFoundError, msgspec.DecodeError):
            continue  # It is just ending, or just starting.
        if is_held(lock) and pool in (None, running.pool):
            found.append((started, running.pid, running))
    return [running for _, _, running in sorted(found, key=lambda each: each[:2])]


def _write_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, secret.encode())
    finally:
        os.close(descriptor)


def _digest(cwd: str | os.PathLike[str]) -> str:
    return hashlib.sha256(os.fsencode(Path(cwd).resolve())).hexdigest()[:16]
