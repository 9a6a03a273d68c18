"""Ties a process to the one that started it: the child ends with it, however that ends.

The parent puts its process id into the child's environment (``TETHER``); the child calls
``hold`` before anything else.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jetmap.embedded.running import Running

TETHER = "JETMAP__PARENT"
SOCKET = "JETMAP__SOCKET"
LOCAL = "JETMAP__UP"
PR_SET_PDEATHSIG = 1


def hold() -> None:
    """In the child: dies with its parent, at once if that is gone already.

    On Linux the kernel sees to it. Elsewhere only an orderly parent ends its children.
    """
    parent = os.environ.pop(TETHER, None)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have gone before the kernel was told.
    if os.getppid() != int(parent):
        os._exit(1)


def local_up() -> Running | None:
    """The `up` whose agent this process is, or None."""
    from jetmap.embedded.running import read_running

    lock = os.environ.pop(LOCAL, None)
    return read_running(lock) if lock else None


def inherited_socket() -> int | None:
    """The file descriptor that the parent listens on for this child, or None."""
    number = os.environ.pop(SOCKET, None)
    return int(number) if number else None
