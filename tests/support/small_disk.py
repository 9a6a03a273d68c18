"""A small file system of its own, and a file that fills it."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import need_root, need_tool, skip_or_fail

DISK = 24 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    need_root("mounting a small file system")
    mount, umount = need_tool("mount"), need_tool("umount")
    place = tmp_path / "disk"
    place.mkdir()
    command = [mount, "-t", "tmpfs", "-o", f"size={DISK}", "jetmap-test", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        skip_or_fail(f"a file system cannot be mounted here: {done.stderr}")
    yield place
    subprocess.run([umount, "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
