"""Every process that a test or the soak starts carries a mark in its environment."""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil

MARK = "TEST_MARK"


def marked(mark: str) -> list[psutil.Process]:
    """Living processes, but this one, that were started under this mark."""
    found = []
    for process in psutil.process_iter():
        try:
            living = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if living and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


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
