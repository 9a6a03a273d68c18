"""End the processes that a worker's functions started, even outside its process group.

Each worker has a mark of its own in its environment. Processes that it starts inherit it,
whatever their parent becomes. A process that clears its environment and starts a session is not
found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

_ROUNDS = 20  # Rounds of killing, at most: a process may start another one while it is killed.
_PAUSE = 0.005  # Seconds between two rounds.


def end_marked(variable: str, mark: str) -> None:
    """Kill every process that has this mark. Blocks: it looks at every process of the machine."""
    quiet = 0
    for _ in range(_ROUNDS):
        found = [pid for pid in _pids() if _is_marked(pid, variable, mark)]
        # A process that is just being started, or that the listing missed, shows the next time.
        quiet = 0 if found else quiet + 1
        if quiet == 2:
            return
        for pid in found:
            _kill(pid, variable, mark)
        time.sleep(_PAUSE)


if sys.platform == "linux":

    def _pids() -> list[int]:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]

    def _is_marked(pid: int, variable: str, mark: str) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False  # The process is gone, or another user's.
        return f"{variable}={mark}\0".encode() in environment

else:

    def _pids() -> list[int]:
        import psutil

        return psutil.pids()

    def _is_marked(pid: int, variable: str, mark: str) -> bool:
        import psutil

        try:
            return bool(psutil.Process(pid).environ().get(variable) == mark)
        except (psutil.Error, OSError):
            return False


def _kill(pid: int, variable: str, mark: str) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, signal.SIGKILL)
            return
        fd = os.pidfd_open(pid)
        try:
            # The pid may have been another process's when its environment was read.
            if _is_marked(pid, variable, mark):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)
