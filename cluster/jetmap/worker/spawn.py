"""Start a worker process: a fresh interpreter with the caller's import path and directory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from jetmap.machine import one_thread, steady_heap, without_ours

MARK = "JETMAP__WORKER"  # Variable in the environment of a worker, and of processes it starts.


def interpreter(sys_path: Sequence[str], statement: str) -> list[str]:
    """Return the command of a fresh interpreter with this ``sys.path`` that runs ``statement``."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    code = f"import sys; sys.path[:] = {list(sys_path)!r}; {statement}"
    return [sys.executable, *flags, "-c", code]


def spawn_worker(
    *,
    sys_path: Sequence[str],
    cwd: str,
    pipe: socket.socket,
    progress_fd: int,
    raw_output: int,
    output_fd: int,
    cpu: int | None,
    mark: str,
    nice: int = 0,
) -> subprocess.Popen[bytes]:
    """Start a worker in a process group of its own; its end of ``pipe`` is passed on.

    Args:
        raw_output: Descriptor for its stdout and stderr.
        output_fd: Descriptor for the lines that it has marked.
    """
    statement = (
        "from jetmap.worker.main import main; "
        f"main({pipe.fileno()}, {progress_fd}, {output_fd}, {os.getpid()}, {cpu}, {nice})"
    )
    return subprocess.Popen(
        interpreter(sys_path, statement),
        cwd=cwd,
        env={
            **steady_heap(os.environ),
            **without_ours(os.environ),
            **one_thread(),
            MARK: mark,
        },
        stdin=subprocess.DEVNULL,
        stdout=raw_output,
        stderr=raw_output,
        pass_fds=(pipe.fileno(), progress_fd, output_fd),
        start_new_session=True,
    )
