"""What a command that another one started finds in its environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jetmap.embedded.running import Running

SOCKET = "JETMAP__SOCKET"
LOCAL = "JETMAP__UP"


def local_up() -> Running | None:
    """The `up` whose agent this process is, or None."""
    from jetmap.embedded.running import read_running

    lock = os.environ.pop(LOCAL, None)
    return read_running(lock) if lock else None


def inherited_socket() -> int | None:
    """The file descriptor that the parent listens on for this child, or None."""
    number = os.environ.pop(SOCKET, None)
    return int(number) if number else None
