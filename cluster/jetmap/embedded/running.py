"""How commands and ``Cluster()`` find the ``jetmap up`` of their directory.

Each `up` holds the lock of a file in its user's runtime directory, which that user alone may
enter. Beside it lie its password, for commands of other directories, and what its workers have
loaded. All of it goes with the `up`, at the latest when the next one starts.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from jetmap.nats.auth import Auth

from .locks import is_held, remove, runtime_directory, take


class Running(msgspec.Struct, frozen=True):
    """A running ``up``.

    url: of its NATS server; gateway: of its HTTP gateway, or empty. key: in hexadecimal, that
    seals chunks for its agent (see ``seals``). tasks, cores, reload: as it was started. python,
    version: of its workers, and of jetmap.
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
        """Where its agent writes down what its workers have loaded."""
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
    """That this process is the ``up`` of a directory; end with it, at the latest."""

    def __init__(self, lock: Path, descriptor: int, running: Running) -> None:
        self.running = running
        self._lock = lock
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Withdraw it. Twice is harmless."""
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
    """Let ``find_running`` find this process's server until ``close``, or its death.

    more: other fields of ``Running``.
    """
    lock = runtime_directory() / f"up-{_digest(cwd)}-{os.getpid()}.lock"
    descriptor = take(lock)
    if descriptor is None:
        raise RuntimeError("this process is registered for this directory already")
    running = Running(url, user, password, os.getpid(), pool, gateway, lock=str(lock), **more)
    _write_secret(running.password_file, password)
    os.truncate(descriptor, 0)
    os.write(descriptor, msgspec.json.encode(running))
    return Registration(lock, descriptor, running)


def already_runs(first: Running) -> str:
    """What to tell the user who starts another `up` in its directory."""
    pool = "" if first.pool == "default" else f" for pool {first.pool}"
    return (
        f"`jetmap up`{pool} runs in this directory already (pid {first.pid}, {first.gateway}): use "
        f"that, end it (kill {first.pid}), add cores with `jetmap worker`, or start this one with "
        "another --pool or elsewhere"
    )


def read_running(lock: str) -> Running | None:
    """The `up` that registered itself there; None if it is gone."""
    try:
        return msgspec.json.decode(Path(lock).read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def find_running(cwd: str | os.PathLike[str], pool: str | None = None) -> Running | None:
    """The newest ``up`` of this directory that is alive (of this pool, if given), or None."""
    found = all_running(cwd, pool)
    return found[-1] if found else None


def all_running(cwd: str | os.PathLike[str], pool: str | None = None) -> list[Running]:
    """Every ``up`` of this directory that is alive, the newest last."""
    found: list[tuple[float, int, Running]] = []
    for lock in runtime_directory().glob(f"up-{_digest(cwd)}-*.lock"):
        try:
            started, content = lock.stat().st_mtime, lock.read_bytes()
            running = msgspec.json.decode(content, type=Running)
        except (FileNotFoundError, msgspec.DecodeError):
            continue  # it is just ending, or just starting
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
