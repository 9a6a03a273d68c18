"""Messages between a keeper and its users: JSON over a pipe and a socket."""

from __future__ import annotations

from typing import Any

import msgspec

from jetmap.settings import KEEPER_LOG_LEVEL, Settings


class KeeperSpec(msgspec.Struct, frozen=True):
    """The choices that make an embedded cluster. Users with equal ones (except modules) share it.

    tasks: ``TASKS`` arguments. modules: dotted names to import as well. main: the path of a
    script whose functions live in ``__main__``. pinned: whether each worker keeps to one core.
    ahead: whether the next chunk of each core waits at the agent, because one process alone sends
    them. settings: by the names in ``Settings``.
    """

    tasks: list[str] = []
    modules: list[str] = []
    main: str | None = None
    pool: str = "default"
    cores: str | int | None = None
    pinned: bool = True
    ahead: bool = False
    share: bool = True
    settings: dict[str, Any] = {}

    def to_settings(self) -> Settings:
        """Return the settings that the keeper and its agent use."""
        return Settings.of({"pool": self.pool, "tasks": self.tasks, **self.settings})

    @property
    def log_level(self) -> str:
        """The level of the keeper's own log."""
        return str(self.settings.get("log_level", KEEPER_LOG_LEVEL))


class Address(msgspec.Struct, frozen=True):
    """The address of an embedded server, and its password."""

    url: str
    user: str
    password: str
    pid: int = 0

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line from the keeper to a user: the server's address, or the reason why there is none."""

    address: Address | None = None
    failed: str | None = None


class KeeperStart(msgspec.Struct, frozen=True):
    """The first message to a new keeper.

    user_fd: the socket of the user that starts it. previous: the address of the keeper that it
    replaces. agent: ``module:function`` that makes the
    agent, for tests.
    """

    spec: KeeperSpec
    lock: str
    lock_fd: int
    user_fd: int
    sys_path: list[str]
    cwd: str
    previous: Address | None = None
    agent: str | None = None
