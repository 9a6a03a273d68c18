"""Which process this is, asked for every map and every outcome: so it is not the system's call."""

from __future__ import annotations

import os

_pid = os.getpid()


def process_id() -> int:
    """``os.getpid()``, remembered."""
    return _pid


def _forked() -> None:
    global _pid
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
