"""Start a worker process: a fresh interpreter with the caller's import path and directory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from jetmap.import_path import hiding_files, own_first
from jetmap.machine import one_thread, steady_heap, without_ours

# What a worker imports only when it needs it.
_LATER = "jetmap.errors, jetmap.functions.import_errors, jetmap.functions.locating, cloudpickle"
MARK = "JETMAP__WORKER"  # Variable in the environment of a worker, and of processes it starts.


def interpreter(sys_path: Sequence[str], imports: str, statement: str) -> list[str]:
    """Return the command of a fresh interpreter that runs ``statement`` with this ``sys.path``.

    Args:
        imports: Run before, with a path on which the user's files hide no other modules.
    """
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    first = own_first(f"path = {list(sys_path)!r}", "path")
    if hiding_files(sys_path):
        imports += f"; import {_LATER}"
    code = f"{first}{imports}; sys.path[:] = path; {statement}"
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
    statement = f"main({pipe.fileno()}, {progress_fd}, {output_fd}, {os.getpid()}, {cpu}, {nice})"
    return subprocess.Popen(
        interpreter(sys_path, "from jetmap.worker.main import main", statement),
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
