"""Cached process id; ``os.getpid()`` is too slow for every outcome."""

from __future__ import annotations

import os

pid = os.getpid()


def process_id() -> int:
    """Return ``os.getpid()``."""
    return pid


def _after_fork() -> None:
    global pid
    pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
