"""Facts about the machine that this process runs on."""

from __future__ import annotations

from pathlib import Path


def boot_id() -> str:
    """The same for all processes of one running kernel, also in containers; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
