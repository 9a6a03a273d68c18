"""Processes that tests and the soak start, and a count of those left over.

Each carries its test's mark in its environment, and so does whatever it starts.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

MARK = "TEST_MARK"
HERE = Path(__file__).parent
KEEPER = "jetmap.embedded.keeper"


def marked(mark: str) -> list[psutil.Process]:
    """Living processes, but this one, that were started under this mark."""
    found = []
    for pid in _with_variable(f"{MARK}={mark}"):
        try:
            process = psutil.Process(pid)
            if pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _with_variable(line: str) -> Iterator[int]:
    """Find the processes that have this variable: on Linux, a tenth of what psutil takes for it."""
    if not Path("/proc/self/environ").exists():
        name, _, value = line.partition("=")
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(name) == value:
                    yield process.pid
        return
    wanted = line.encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def described(processes: Iterable[psutil.Process]) -> list[str]:
    lines = []
    for process in processes:
        try:
            lines.append(f"{process.pid}: {' '.join(process.cmdline())[:300]}")
        except psutil.Error:
            continue
    return lines


def kill_if_there(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass


@contextmanager
def nothing_left(timeout: float = 120, *, patient: bool = False) -> Iterator[str]:
    """A mark and a runtime directory for what is started in here; fails if a process is left.

    patient: waits for keepers to end by themselves, two seconds after their last user; else
    they are asked to.
    """
    mark = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="jm-", dir="/tmp") as run:
        names = (MARK, "XDG_RUNTIME_DIR", "XDG_STATE_HOME")
        before = {name: os.environ.get(name) for name in names}
        os.environ |= {MARK: mark, "XDG_RUNTIME_DIR": run, "XDG_STATE_HOME": f"{run}/state"}
        try:
            yield mark
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            deadline = time.monotonic() + timeout
            while (left := marked(mark)) and time.monotonic() < deadline:
                for process in left:
                    if not patient and KEEPER in " ".join(cmdline(process)):
                        process.terminate()
                        patient = True
                time.sleep(0.02)  # Processes left then are reported, and killed.
            lines = described(left)
            for process in left:
                kill_if_there(process)
        assert not lines, f"processes are left: {lines}"


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def run_python(
    code: str, *, cwd: Path, timeout: float = 120, stdin: str | None = None, file: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as a script or (file=False) with ``python -c``."""
    if file:
        script = cwd / "script.py"
        script.write_text(code)
        command = [sys.executable, str(script)]
    else:
        command = [sys.executable, "-c", code]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=timeout,
        input=stdin,
    )


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def end(process: subprocess.Popen[Any]) -> None:
    """Stop a child for good, frozen or not."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
